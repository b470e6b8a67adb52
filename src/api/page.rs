//! Lists in pages.

use super::cursor::Cursor;
use super::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

const DEFAULT: i64 = 50;
const MAX: i64 = 200;

/// One page of a list, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The cursor of the next page; none when this is the last.
    pub next_cursor: Option<String>,
}

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Entries at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// Entries to give, and the id of the last entry of the page before.
    ///
    /// # Errors
    /// `invalid_parameter`, `invalid_cursor`.
    pub fn read(&self) -> Result<(i64, Option<String>), Problem> {
        bounds(self.limit, self.cursor.as_deref())
    }
}

/// See [`PageQuery::read`].
///
/// # Errors
/// `invalid_parameter`, `invalid_cursor`.
pub fn bounds(limit: Option<i64>, cursor: Option<&str>) -> Result<(i64, Option<String>), Problem> {
    let limit = limit.unwrap_or(DEFAULT);
    if !(1..=MAX).contains(&limit) {
        let text = format!("must be from 1 to {MAX}");
        return Err(Problem::new(Code::InvalidParameter)
            .detail(format!("query parameter limit: {text}"))
            .field("limit", text));
    }
    let before = cursor.map(Cursor::decode).transpose()?.map(|cursor| cursor.id);
    Ok((limit, before))
}

/// A time that a query parameter names, ms.
///
/// # Errors
/// `invalid_parameter`.
pub fn moment(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let time = text.map(|text| OffsetDateTime::parse(text, &Rfc3339)).transpose().map_err(|_| {
        let text = "is not a time as RFC 3339 has it, such as 2026-01-31T12:00:00Z";
        Problem::new(Code::InvalidParameter).detail(format!("query parameter {name}: {text}")).field(name, text)
    })?;
    Ok(time.map(|time| i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()))
}

/// A page of `limit` rows at most out of rows of which one more was asked for, each with its time and id.
pub fn page<R, T>(mut rows: Vec<R>, limit: i64, place: impl Fn(&R) -> (i64, String), show: impl Fn(R) -> T) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| {
        let (millis, id) = place(row);
        Cursor { millis, id }.encode()
    });
    Page { items: rows.into_iter().map(show).collect(), next_cursor }
}
