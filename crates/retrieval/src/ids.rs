//! Identifiers: short strings of the caller's choosing, one type per kind of thing.
//!
//! Callers may send an integer; `7` and `"7"` are the same id.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The longest id accepted, in bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 128;

/// Why a string is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No characters at all.
    #[error("must not be empty")]
    Empty,
    /// More than [`ID_BYTES_MAX`] bytes.
    #[error("is {bytes} bytes long, the limit is {ID_BYTES_MAX}")]
    TooLong {
        /// How long it was.
        bytes: usize,
    },
    /// Contains a control character.
    #[error("must not contain control characters")]
    Control,
}

/// Checks that `text` is an id, of whatever kind: the rules of words too.
///
/// # Errors
/// When it is empty, longer than [`ID_BYTES_MAX`] or holds a control character.
pub fn check_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong { bytes: text.len() });
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::Control);
    }
    Ok(())
}

/// Accepts a string, or an integer where the format can tell them apart.
struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Box<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an id: a string of 1 to {ID_BYTES_MAX} bytes, or an integer")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Box<str>, E> {
        check_id(text).map_err(|rule| E::custom(format_args!("id {rule}")))?;
        Ok(text.into())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Box<str>, E> {
        Ok(number.to_string().into())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Box<str>, E> {
        Ok(number.to_string().into())
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks and wraps `text`.
            ///
            /// # Errors
            /// When it is empty, longer than [`ID_BYTES_MAX`] or holds a control character.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check_id(text)?;
                Ok(Self(text.into()))
            }

            /// Of `text` that was an id before: it is not checked again.
            pub fn known(text: &str) -> Self {
                debug_assert!(check_id(text).is_ok(), "{text:?} is no id");
                Self(text.into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number.to_string().into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    deserializer.deserialize_any(IdVisitor).map(Self)
                } else {
                    deserializer.deserialize_str(IdVisitor).map(Self)
                }
            }
        }
    };
}

id!(/// A person who sees ads.
    UserId);
id!(/// A catalogue product, or a pin.
    ItemId);
id!(/// A promoted item.
    AdId);
id!(/// Who pays for an ad.
    AdvertiserId);
id!(/// A category of the interest taxonomy, such as `home_decor/armchair`.
    InterestId);
id!(/// The caller's name for one event, so that a repeated delivery is recognised.
    EventId);
id!(/// The caller's name for one request.
    RequestId);
id!(/// A node of the cluster, as the topology file names it.
    NodeName);
id!(/// One published generation: model, ad embeddings and index that belong together.
    GenerationId);
id!(/// The encoder that made a sequence state: a digest of its tensors and of the feature schema.
    EncoderVersion);

/// One hash partition of the ads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u32);

/// One hash partition of the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_and_its_decimal_string_are_one_id() {
        let ids: Vec<AdId> = serde_json::from_str(r#"[7, "7", -3, "a/b"]"#).unwrap();
        assert_eq!(ids[0], ids[1]);
        assert_eq!(ids[2].as_str(), "-3");
        assert_eq!(ids[3].as_str(), "a/b");
    }

    #[test]
    fn bad_ids_name_their_rule() {
        let check = |json: &str, rule: &str| {
            let error = serde_json::from_str::<UserId>(json).unwrap_err().to_string();
            assert!(error.contains(rule), "{json}: {error}");
        };
        check(r#""""#, "must not be empty");
        check(r#""a\u0000""#, "control characters");
        check(&format!("\"{}\"", "x".repeat(1 << 20)), "is 1048576 bytes long, the limit is 128");
        check("1.5", "expected an id");
        check("{}", "expected an id");
    }

    #[test]
    fn ids_survive_a_format_that_does_not_describe_itself() {
        let id = AdId::new("ad901").unwrap();
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(postcard::from_bytes::<AdId>(&bytes).unwrap(), id);
        assert!(postcard::from_bytes::<AdId>(&[200, 1, 0]).is_err());
    }
}
