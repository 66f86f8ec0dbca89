//! A small typesetter: title, lines and tables on A4 pages, in Helvetica, which every PDF reader has.
//!
//! Text is ASCII; anything else would need a font in the file and is shown as `?`.

use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

const WIDTH: f32 = 595.0;
const HEIGHT: f32 = 842.0;
const MARGIN: f32 = 50.0;
/// Below this only the footer is written.
const BOTTOM: f32 = 60.0;
const TEXT_SIZE: f32 = 9.0;
const ROW_HEIGHT: f32 = 13.0;
/// Between a cell's text and its edge.
const PADDING: f32 = 4.0;

const PLAIN: Name = Name(b"F1");
const BOLD: Name = Name(b"F2");

/// On which side of its column a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

pub(super) struct Column {
    pub(super) title: String,
    pub(super) align: Align,
}

/// Columns are equally wide; each row has one text per column.
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<String>>,
    pub(super) total: Vec<String>,
}

/// Pages being filled from top to bottom.
pub(super) struct Sheet {
    title: String,
    pages: Vec<Content>,
    y: f32,
}

impl Sheet {
    pub(super) fn new(title: String) -> Self {
        Self { title, pages: vec![Content::new()], y: HEIGHT - MARGIN }
    }

    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn title(&mut self, text: &str) {
        self.down(20.0);
        self.write(MARGIN, text, BOLD, 18.0);
        self.down(10.0);
    }

    pub(super) fn line(&mut self, text: &str) {
        self.down(14.0);
        self.write(MARGIN, text, PLAIN, 10.0);
    }

    /// Begins a new page rather than standing alone at the bottom of one.
    pub(super) fn heading(&mut self, text: &str) {
        if self.y < BOTTOM + 5.0 * ROW_HEIGHT + 30.0 {
            self.turn_page();
        }
        self.down(30.0);
        self.write(MARGIN, text, BOLD, 12.0);
        self.down(6.0);
    }

    /// The header is repeated on every page the table reaches.
    pub(super) fn table(&mut self, table: &Table) {
        let titles: Vec<String> = table.columns.iter().map(|column| column.title.clone()).collect();
        self.row(table, &titles, Row::Header);
        for row in &table.rows {
            if self.y - ROW_HEIGHT < BOTTOM {
                self.turn_page();
                self.row(table, &titles, Row::Header);
            }
            self.row(table, row, Row::Body);
        }
        if self.y - ROW_HEIGHT < BOTTOM {
            self.turn_page();
            self.row(table, &titles, Row::Header);
        }
        self.row(table, &table.total, Row::Total);
    }

    /// The file: objects 1 to 5 are its frame, then two for each page.
    pub(super) fn into_pdf(mut self) -> Vec<u8> {
        let count = self.pages.len();
        for (index, page) in self.pages.iter_mut().enumerate() {
            let footer = format!("{}  -  page {} of {count}", self.title, index + 1);
            show(page, MARGIN, 35.0, &footer, PLAIN, 8.0);
        }
        let [catalog, tree, plain, bold, info] = [1, 2, 3, 4, 5].map(Ref::new);
        let number = |index: usize| i32::try_from(index).unwrap_or(i32::MAX);
        let page_at = |index: usize| Ref::new(6 + 2 * number(index));
        let content_at = |index: usize| Ref::new(7 + 2 * number(index));

        let mut pdf = Pdf::new();
        pdf.catalog(catalog).pages(tree);
        pdf.pages(tree).kids((0..count).map(page_at)).count(number(count));
        pdf.document_info(info).title(TextStr(&ascii(&self.title))).producer(TextStr("MarketPrism"));
        for (font, name) in [(plain, "Helvetica"), (bold, "Helvetica-Bold")] {
            pdf.type1_font(font)
                .base_font(Name(name.as_bytes()))
                .encoding_predefined(Name(b"WinAnsiEncoding"));
        }
        for (index, content) in self.pages.into_iter().enumerate() {
            let mut page = pdf.page(page_at(index));
            page.media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT)).parent(tree).contents(content_at(index));
            page.resources().fonts().pair(PLAIN, plain).pair(BOLD, bold);
            page.finish();
            pdf.stream(content_at(index), &content.finish());
        }
        pdf.finish()
    }

    fn row(&mut self, table: &Table, cells: &[String], kind: Row) {
        self.y -= ROW_HEIGHT;
        let (y, width) = (self.y, (WIDTH - 2.0 * MARGIN) / table.columns.len().max(1) as f32);
        let page = self.page();
        if kind == Row::Header {
            page.save_state().set_fill_gray(0.88);
            page.rect(MARGIN, y - 3.5, WIDTH - 2.0 * MARGIN, ROW_HEIGHT).fill_nonzero().restore_state();
        }
        if kind == Row::Total {
            page.set_line_width(0.5).move_to(MARGIN, y + ROW_HEIGHT - 3.5);
            page.line_to(WIDTH - MARGIN, y + ROW_HEIGHT - 3.5).stroke();
        }
        let font = if kind == Row::Body { PLAIN } else { BOLD };
        for (index, (column, text)) in table.columns.iter().zip(cells).enumerate() {
            let left = MARGIN + index as f32 * width;
            let x = match column.align {
                Align::Left => left + PADDING,
                Align::Right => left + width - PADDING - text_width(text, font, TEXT_SIZE),
            };
            show(page, x, y, text, font, TEXT_SIZE);
        }
    }

    fn write(&mut self, x: f32, text: &str, font: Name, size: f32) {
        let y = self.y;
        show(self.page(), x, y, text, font, size);
    }

    fn down(&mut self, by: f32) {
        self.y -= by;
        if self.y < BOTTOM {
            self.turn_page();
        }
    }

    fn turn_page(&mut self) {
        self.pages.push(Content::new());
        self.y = HEIGHT - MARGIN;
    }

    fn page(&mut self) -> &mut Content {
        let last = self.pages.len() - 1; // a sheet begins with a page and loses none
        &mut self.pages[last]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Header,
    Body,
    Total,
}

fn show(page: &mut Content, x: f32, y: f32, text: &str, font: Name, size: f32) {
    page.begin_text().set_font(font, size).next_line(x, y).show(Str(ascii(text).as_bytes())).end_text();
}

fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// Advance widths of `' '..='~'` in thousandths of the size, from Adobe's metrics of the standard fonts.
#[rustfmt::skip]
const PLAIN_WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278,
    556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556,
    1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778,
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556,
    333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556,
    556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];
#[rustfmt::skip]
const BOLD_WIDTHS: [u16; 95] = [
    278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278,
    556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 333, 333, 584, 584, 584, 611,
    975, 722, 722, 722, 722, 667, 611, 778, 722, 278, 556, 722, 611, 833, 722, 778,
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 333, 278, 333, 584, 556,
    333, 556, 611, 556, 611, 556, 333, 611, 611, 278, 278, 556, 278, 889, 611, 611,
    611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500, 389, 280, 389, 584,
];

fn text_width(text: &str, font: Name, size: f32) -> f32 {
    let widths = if font == BOLD { &BOLD_WIDTHS } else { &PLAIN_WIDTHS };
    let width = |byte: u8| widths.get(usize::from(byte.saturating_sub(b' '))).copied().unwrap_or(556);
    ascii(text).bytes().map(|byte| f32::from(width(byte))).sum::<f32>() * size / 1_000.0
}
