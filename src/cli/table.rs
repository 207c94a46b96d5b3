//! Tables for people: columns as wide as their widest cell, and what is said in them.

use std::fmt::Write as _;

use afterglow_profile::measure;

/// Renders rows in columns that begin below each other.
pub(crate) fn render<R: AsRef<[String]>>(rows: &[R]) -> String {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.as_ref().iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Replaces what would break a line of a table.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Renders a size as pprof writes sizes.
pub(crate) fn bytes_text(bytes: u64) -> String {
    measure::text(i64::try_from(bytes).unwrap_or(i64::MAX), "bytes")
}

/// Renders a number of things.
pub(crate) fn counted(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Renders a time as RFC 3339 in UTC, to the millisecond.
pub(crate) fn time_text(time: &afterglow_proto::Timestamp) -> String {
    afterglow_service::time::format_millis(time.seconds * 1_000_000_000 + i64::from(time.nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_below_each_other() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        assert_eq!(render(&[row(&["A", "B"]), row(&["long", "x"]), row(&["é"])]), "A     B\nlong  x\né\n");
        assert_eq!(render::<Vec<String>>(&[]), "");
        assert_eq!(printable("a\nb"), "a\u{fffd}b");
        assert_eq!([bytes_text(0), bytes_text(512), bytes_text(5 << 19)], ["0", "512B", "2.50MB"]);
        assert_eq!([counted(1, "cell"), counted(2, "cell")], ["1 cell", "2 cells"]);
    }
}
