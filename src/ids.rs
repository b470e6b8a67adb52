//! Ids: a type prefix and a ULID, one type each, so that one can never stand in for another.
//!
//! A ULID sorts by the time it was made, so ids are the order of pages too.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use ulid::{Generator, Ulid};

/// A text that is not an id of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} ids look like {prefix}01J8Z3K4M5N6P7Q8R9S0T1V2W3: the prefix {prefix:?} and 26 letters and digits")]
pub struct InvalidId {
    what: &'static str,
    prefix: &'static str,
}

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident = $prefix:literal, $what:literal;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The prefix of every id of this type.
            pub const PREFIX: &'static str = $prefix;

            /// A new id.
            #[must_use]
            pub fn generate() -> Self {
                Self(format!("{}{}", $prefix, next()).into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let ulid = text.strip_prefix($prefix).filter(|rest| is_ulid(rest));
                ulid.map(|_| Self(text.into())).ok_or(InvalidId { what: $what, prefix: $prefix })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "[0-9A-HJKMNP-TV-Z]{26}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+ };
}

ids! {
    /// A job.
    JobId = "job_", "job";
    /// A workspace: a tenant.
    WorkspaceId = "ws_", "workspace";
    /// A document of a workspace.
    DocumentId = "doc_", "document";
    /// A config: a package with its versions.
    ConfigId = "cfg_", "config";
    /// One immutable version of a config.
    VersionId = "cfgv_", "config version";
    /// A draft of a config.
    DraftId = "draft_", "draft";
    /// A file of a draft, with this content.
    DraftFileId = "file_", "file of a draft";
    /// An API key.
    KeyId = "key_", "API key";
    /// One `ade serve` process's data directory; outlives the process.
    NodeId = "node_", "node";
    /// One installation: everything that shares a database.
    InstanceId = "inst_", "instance";
    /// An entry of the audit.
    AuditId = "aud_", "audit entry";
}

impl AuditId {
    /// The entry of a job's submission: of the same time, and only the job says which.
    #[must_use]
    pub fn of_submission(job: &JobId) -> Self {
        Self(format!("{}{}", Self::PREFIX, job.as_str().trim_start_matches(JobId::PREFIX)).into())
    }

    /// The lowest and the highest id of a time, ms.
    #[must_use]
    pub fn bounds(ms: i64) -> (Self, Self) {
        // What a ULID can hold ends in the year 10889.
        let ms = u64::try_from(ms).unwrap_or_default().min((1 << Ulid::TIME_BITS) - 1);
        let of = |random| Self(format!("{}{}", Self::PREFIX, Ulid::from_parts(ms, random)).into());
        (of(0), of(u128::MAX))
    }
}

/// A ULID after all that this process made before, also within one millisecond: what came first is listed and run first.
fn next() -> Ulid {
    static LAST: Mutex<Generator> = Mutex::new(Generator::new());
    let next = LAST.lock().unwrap_or_else(PoisonError::into_inner).generate();
    // Only when a millisecond has had 2^80 ids.
    next.unwrap_or_else(|_| Ulid::new())
}

/// Crockford's base 32 in upper case, as [`Ulid`] prints it (<https://github.com/ulid/spec>).
fn is_ulid(text: &str) -> bool {
    text.len() == 26 && Ulid::from_string(text).is_ok_and(|ulid| ulid.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_process_are_in_order() {
        let ids: Vec<JobId> = (0..1000).map(|_| JobId::generate()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn the_bounds_of_a_time_are_ids_and_around_what_is_made_then() {
        let before = crate::store::now_ms();
        let (job, id) = (JobId::generate(), AuditId::generate());
        let entry = AuditId::of_submission(&job);
        let after = crate::store::now_ms();
        assert!(entry < id, "the job was first");
        for id in [&entry, &id] {
            assert!(AuditId::bounds(before).0 <= *id && *id <= AuditId::bounds(after).1);
            assert!(AuditId::bounds(before - 10).1 < *id && *id < AuditId::bounds(after + 10).0);
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
        }
        for ms in [i64::MIN, 0, 1, i64::MAX] {
            let (low, high) = AuditId::bounds(ms);
            assert!(low < high && low.as_str().parse() == Ok(low.clone()) && high.as_str().parse() == Ok(high));
        }
    }

    #[test]
    fn an_id_is_read_as_it_is_printed_and_nothing_else_is() {
        let id = JobId::generate();
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        for wrong in ["", "job_", "job_x", &id.as_str().to_lowercase(), &id.as_str().replace("job_", "doc_")] {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong}");
        }
        assert!(id.as_str().parse::<DocumentId>().is_err());
    }
}
