//! Rows as CSV, and as a workbook that Excel and LibreOffice open.

use csv::{Terminator, WriterBuilder};
use rust_xlsxwriter::{Format, Workbook, XlsxError};
use serde_json::Value;

/// What a workbook is called over HTTP.
pub(super) const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// A text as it is, or rows.
///
/// # Errors
/// It is neither.
pub(super) fn csv(body: &Value) -> Result<Vec<u8>, String> {
    if let Some(text) = body.as_str() {
        return Ok(text.into());
    }
    let mut writer = WriterBuilder::new().flexible(true).terminator(Terminator::CRLF).from_writer(Vec::new());
    for row in rows(body)? {
        writer.write_record(row?.iter().map(text_of)).map_err(|error| error.to_string())?;
    }
    writer.into_inner().map_err(|error| error.to_string())
}

/// A workbook of one sheet, whose first row is its head. Texts stay texts, whatever they look like: no formula, and no zero lost.
///
/// # Errors
/// There are no rows, or a sheet does not hold them: at most 1,048,576 rows of 16,384 cells, at most 32,767 characters in each.
pub(super) fn workbook(body: &Value) -> Result<Vec<u8>, String> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    let refused = |error: XlsxError| format!("a sheet does not hold this: {error}");
    let head = Format::new().set_bold();
    sheet.set_freeze_panes(1, 0).map_err(refused)?;
    sheet.set_row_format(0, &head).map_err(refused)?;
    for (row, cells) in (0..).zip(rows(body)?) {
        for (column, cell) in (0..).zip(cells?) {
            match cell {
                Value::Null => continue,
                Value::Bool(flag) => sheet.write_boolean(row, column, *flag),
                Value::Number(number) => match number.as_f64() {
                    Some(number) => sheet.write_number(row, column, number),
                    None => sheet.write_string(row, column, number.to_string()),
                },
                text => sheet.write_string(row, column, text_of(text)),
            }
            .map_err(refused)?;
        }
    }
    sheet.autofit();
    workbook.save_to_buffer().map_err(refused)
}

fn rows(body: &Value) -> Result<impl Iterator<Item = Result<&Vec<Value>, String>>, String> {
    let rows = body.as_array().ok_or("rows are a list of lists")?;
    Ok(rows.iter().map(|row| row.as_array().ok_or_else(|| "a row is a list".to_owned())))
}

fn text_of(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use calamine::{Reader, Xlsx};
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_become_csv() {
        let text = csv(&json!([["a", "b,c"], [1, null], ["say \"hi\"", true]])).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "a,\"b,c\"\r\n1,\r\n\"say \"\"hi\"\"\",true\r\n");
    }

    #[test]
    fn rows_become_a_workbook() {
        let bytes =
            workbook(&json!([["¢", "phone"], [1.5, "024"], [null, "=1+1"], [true, "<a&b>"]])).unwrap();
        let mut book: Xlsx<_> = calamine::open_workbook_from_rs(Cursor::new(bytes)).unwrap();
        let sheet = book.worksheet_range_at(0).unwrap().unwrap();
        let cells: Vec<String> = sheet.rows().map(|row| format!("{row:?}")).collect();
        assert_eq!(
            cells,
            [
                r#"[String("¢"), String("phone")]"#,
                r#"[Float(1.5), String("024")]"#,
                r#"[Empty, String("=1+1")]"#,
                r#"[Bool(true), String("<a&b>")]"#
            ]
        );
    }

    #[test]
    fn what_a_sheet_does_not_hold_is_refused() {
        assert!(workbook(&json!("a,b")).unwrap_err().contains("list of lists"));
        assert!(workbook(&json!([["x".repeat(32_768)]])).unwrap_err().contains("does not hold"));
    }
}
