//! The least that a program in Rust does to a table: bare IN OUT [--threads]
//!
//! Reads each cell of the first sheet and writes it into a new workbook, with the libraries that one would take, and nothing else: no
//! detection, no scripts, no checks. One thread, or one that reads and one that writes. `benches/run` compares a job with it.

use calamine::{DataRef, Reader, Xlsx, open_workbook};
use rust_xlsxwriter::{Format, Workbook, Worksheet, XlsxError};
use std::error::Error;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

type Failed = Box<dyn Error + Send + Sync>;

/// Cells that go from the reader to the writer at once.
const BATCH: usize = 10_000;
/// Batches under way.
const BATCHES: usize = 4;

enum Value {
    Number(f64),
    Date(f64),
    Text(String),
    Flag(bool),
}

struct Cell {
    row: u32,
    column: u16,
    value: Value,
}

fn main() -> Result<(), Failed> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [from, to, rest @ ..] = &*words else { return Err("bare IN OUT [--threads]".into()) };
    if rest.iter().any(|word| word == "--threads") {
        let (out, cells) = sync_channel(BATCHES);
        let to = to.clone();
        let writing = thread::spawn(move || write_batches(&to, &cells));
        let mut batch = Vec::with_capacity(BATCH);
        read(from, |cell| {
            batch.push(cell);
            if batch.len() == BATCH {
                out.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))?;
            }
            Ok(())
        })?;
        out.send(batch)?;
        drop(out);
        writing.join().map_err(|_| "the writer broke down")?
    } else {
        let mut book = Workbook::new();
        let date = Format::new().set_num_format("yyyy-mm-dd");
        let sheet = book.add_worksheet_with_constant_memory()?;
        read(from, |cell| Ok(write(sheet, &date, cell)?))?;
        Ok(book.save(to)?)
    }
}

fn read(path: &str, mut take: impl FnMut(Cell) -> Result<(), Failed>) -> Result<(), Failed> {
    let mut book: Xlsx<_> = open_workbook(path)?;
    let name = book.sheet_names().into_iter().next().ok_or("there is no sheet")?;
    let mut cells = book.worksheet_cells_reader(&name)?;
    while let Some(cell) = cells.next_cell()? {
        let (row, column) = cell.get_position();
        let value = match cell.get_value() {
            #[expect(clippy::cast_precision_loss, reason = "a spreadsheet has no other numbers")]
            DataRef::Int(number) => Value::Number(*number as f64),
            DataRef::Float(number) => Value::Number(*number),
            DataRef::DateTime(date) => Value::Date(date.as_f64()),
            DataRef::Bool(flag) => Value::Flag(*flag),
            DataRef::SharedString(text) => Value::Text((*text).to_owned()),
            DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => {
                Value::Text(text.clone())
            }
            DataRef::Error(error) => Value::Text(error.to_string()),
            DataRef::Empty => continue,
        };
        take(Cell { row, column: u16::try_from(column)?, value })?;
    }
    Ok(())
}

fn write_batches(path: &str, batches: &Receiver<Vec<Cell>>) -> Result<(), Failed> {
    let mut book = Workbook::new();
    let date = Format::new().set_num_format("yyyy-mm-dd");
    let sheet = book.add_worksheet_with_constant_memory()?;
    for cell in batches.iter().flatten() {
        write(sheet, &date, cell)?;
    }
    Ok(book.save(path)?)
}

fn write(sheet: &mut Worksheet, date: &Format, Cell { row, column, value }: Cell) -> Result<(), XlsxError> {
    match value {
        Value::Number(number) => sheet.write_number(row, column, number)?,
        Value::Date(days) => sheet.write_number_with_format(row, column, days, date)?,
        Value::Text(text) => sheet.write_string(row, column, text)?,
        Value::Flag(flag) => sheet.write_boolean(row, column, flag)?,
    };
    Ok(())
}
