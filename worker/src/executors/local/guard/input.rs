//! What the guard's pipe carries: the length of the command's input on a line, and the input.

use std::io::{self, BufRead, Read as _};

/// Bytes of a command's input, at most: the guard holds it until the command has read it.
pub const INPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Characters of the line with the length, its end included.
const LINE_BYTES_MAX: u64 = 16;

/// An input as it is sent.
pub(super) fn written(input: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{}\n", input.len()).into_bytes();
    bytes.extend_from_slice(input);
    bytes
}

/// Reads an input; a pipe that ends before it is complete is an error, for then its writer is gone.
pub(super) fn read(pipe: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    pipe.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    let length =
        line.strip_suffix(b"\n").and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let invalid = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
    match length {
        None => Err(invalid(
            "the first line is not its length; this subcommand is for workers, not for people".to_owned(),
        )),
        Some(length) if length > INPUT_BYTES_MAX => {
            Err(invalid(format!("it has {length} bytes; at most {INPUT_BYTES_MAX} are allowed")))
        }
        Some(length) => {
            let mut input = vec![0; length];
            pipe.read_exact(&mut input)?;
            Ok(input)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read_as_it_was_written_and_what_is_cut_off_is_refused() {
        for input in [&b""[..], b"{}", b"5\nhello", &vec![b'x'; 100_000]] {
            let mut pipe = written(input);
            pipe.extend_from_slice(b"later");
            let mut pipe = pipe.as_slice();
            assert_eq!(read(&mut pipe).expect("an input"), input);
            assert_eq!(pipe, b"later");
        }
        for bytes in [&b""[..], b"3", b"3\nab", b"-1\n", b"x\n", b"99999999\n", b"000000000000000000001\nx"] {
            assert!(read(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }
}
