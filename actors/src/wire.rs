//! What crosses nodes: versioned values that never panic on the way in.

use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{ActorRef, BytesConvertable, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The layout of every message in [`crate::protocol`].
///
/// postcard does not describe itself, so *every* change of a layout raises this; `tests/wire_golden/` holds the bytes.
pub const WIRE_VERSION: u8 = 10;

/// The largest message that is sent, in bytes: a larger frame would close the peer's whole session.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The largest frame that the transport accepts: a message and what ractor_cluster puts around it.
pub const FRAME_BYTES_MAX: u64 = (MESSAGE_BYTES_MAX + (64 << 10)) as u64;

/// Why a message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The sender speaks another version.
    #[error("message of wire version {found}, this node speaks {WIRE_VERSION}")]
    Version {
        /// The sender's version.
        found: u8,
    },
    /// The bytes are not what the version says.
    #[error("malformed message")]
    Malformed,
}

/// A value that crosses nodes: one version byte, then postcard.
///
/// Decoding never panics. ractor's `BytesConvertable` cannot fail and drops a message whose decoder panics without a
/// trace, so a bad payload is kept as a value and answered by the actor that opens it. Between actors of one node the
/// value is handed over as it is.
#[derive(Debug)]
pub struct Wire<T>(Result<T, WireError>);

impl<T> Wire<T> {
    /// Wraps a value for sending.
    pub fn new(value: T) -> Self {
        Self(Ok(value))
    }

    /// The value received.
    ///
    /// # Errors
    /// When the bytes were of another version, or not a message at all. Not retryable.
    pub fn open(self) -> Result<T, WireError> {
        self.0
    }
}

impl<T: Serialize + DeserializeOwned> BytesConvertable for Wire<T> {
    fn into_bytes(self) -> Vec<u8> {
        // A value that does not encode is sent as an empty message, which the other side reads as malformed.
        match self.0 {
            Ok(value) => postcard::to_extend(&value, vec![WIRE_VERSION]).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    fn from_bytes(bytes: Vec<u8>) -> Self {
        Wire(match bytes.split_first() {
            Some((&WIRE_VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((value, [])) => Ok(value),
                Ok(_) | Err(_) => Err(WireError::Malformed),
            },
            Some((&found, _)) => Err(WireError::Version { found }),
            None => Err(WireError::Malformed),
        })
    }
}

/// What an actor that other nodes may call receives.
///
/// Callers hold `ActorRef<Inbox<R, L>>` for local *and* remote actors; an `ActorRef<R>` works remotely and fails to
/// downcast locally.
pub enum Inbox<R, L> {
    /// A request, from this node or another.
    Request(R),
    /// A note from this node; refuses to be serialized.
    Note(L),
}

impl<R: Message, L: Send + 'static> Message for Inbox<R, L> {
    fn serializable() -> bool {
        R::serializable()
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        match self {
            Inbox::Request(request) => request.serialize(),
            Inbox::Note(_) => Err(BoxedDowncastErr),
        }
    }

    fn deserialize(bytes: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        R::deserialize(bytes).map(Inbox::Request)
    }
}

/// Sends a note to an actor of this node. An actor that has ended needs no notes.
pub(crate) fn note<R: Message, L: Send + 'static>(actor: &ActorRef<Inbox<R, L>>, note: L) {
    drop(actor.cast(Inbox::Note(note)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let opened = Wire::<Vec<(u64, String)>>::from_bytes(bytes.clone()).open();
            if bytes.first() != Some(&WIRE_VERSION) {
                prop_assert!(opened.is_err());
            }
        }

        #[test]
        fn a_value_survives_the_wire(value in prop::collection::vec((any::<u64>(), ".{0,12}"), 0..9)) {
            let bytes = Wire::new(value.clone()).into_bytes();
            prop_assert_eq!(Wire::<Vec<(u64, String)>>::from_bytes(bytes).open(), Ok(value));
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = Wire::new(7u32).into_bytes();
        bytes[0] = 200;
        assert_eq!(Wire::<u32>::from_bytes(bytes.clone()).open(), Err(WireError::Version { found: 200 }));
        bytes[0] = WIRE_VERSION;
        bytes.push(0);
        assert_eq!(Wire::<u32>::from_bytes(bytes).open(), Err(WireError::Malformed));
        assert_eq!(Wire::<u32>::from_bytes(vec![]).open(), Err(WireError::Malformed));
    }
}
