//! What stands where in the volume report.

use chrono::{DateTime, Utc};

use crate::{
    periods::{self, Month, ZONE},
    volume_report::{
        pdf::{Align, Column, Sheet, Table},
        totals::{Dimension, Total, Volumes},
    },
};

/// A summary per dimension, then every combination.
pub(super) fn lay_out(
    volumes: &Volumes,
    month: &Month,
    dimensions: &[Dimension],
    now: DateTime<Utc>,
) -> Sheet {
    let total = volumes.total();
    let mut sheet = Sheet::new(format!("MarketPrism: trade volumes of {}", month.name));
    sheet.title(&format!("Trade volumes of {}", month.name));
    sheet.line(&format!("From {} to {} ({ZONE})", local(month.from), local(month.to)));
    sheet.line(&format!("Turnover {} USDT in {} trades", money(total.turnover), grouped(total.trades)));
    match volumes.first_ts.zip(volumes.last_ts) {
        Some((first, last)) => {
            let (first, last) = (periods::written_ms(first), periods::written_ms(last));
            sheet.line(&format!("First trade {first}, last trade {last}"));
        }
        None => sheet.line("There were no trades in this month."),
    }
    sheet.line(&format!("Written {}", periods::written(now)));

    for dimension in dimensions {
        sheet.heading(&format!("By {}", dimension.name()));
        sheet.table(&table(volumes, &[*dimension]));
    }
    if dimensions.len() > 1 {
        let names: Vec<&str> = dimensions.iter().map(|dimension| dimension.name()).collect();
        sheet.heading(&format!("By {}", names.join(", ")));
        sheet.table(&table(volumes, dimensions));
    }
    sheet
}

fn table(volumes: &Volumes, dimensions: &[Dimension]) -> Table {
    // A quantity of bitcoin and a quantity of ether make no sum.
    let quantity = dimensions.contains(&Dimension::Symbol);
    let column = |title: &str, align| Column { title: title.to_owned(), align };
    let mut columns: Vec<Column> =
        dimensions.iter().map(|dimension| column(dimension.name(), Align::Left)).collect();
    columns.push(column("trades", Align::Right));
    if quantity {
        columns.push(column("quantity", Align::Right));
    }
    columns.push(column("turnover, USDT", Align::Right));

    let row = |mut cells: Vec<String>, total: &Total, with_quantity: bool| {
        cells.push(grouped(total.trades));
        if quantity {
            cells.push(if with_quantity { fixed(total.quantity, 4) } else { String::new() });
        }
        cells.push(money(total.turnover));
        cells
    };
    let texts = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
    let rows =
        volumes.by(dimensions).into_iter().map(|(values, total)| row(texts(values), &total, true)).collect();
    let mut names = vec![String::new(); dimensions.len()];
    if let Some(first) = names.first_mut() {
        "total".clone_into(first);
    }
    Table { columns, rows, total: row(names, &volumes.total(), false) }
}

fn local(instant: DateTime<Utc>) -> String {
    instant.with_timezone(&ZONE).format("%Y-%m-%d %H:%M").to_string()
}

/// Two digits after the point, thousands apart.
pub(super) fn money(value: f64) -> String {
    fixed(value, 2)
}

fn fixed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    format!("{whole}.{fraction}")
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_kept_apart() {
        for (value, text) in
            [(0.0, "0.00"), (999.999, "1,000.00"), (1_234_567.891, "1,234,567.89"), (100.5, "100.50")]
        {
            assert_eq!(money(value), text);
        }
    }
}
