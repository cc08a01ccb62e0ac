//! Control records, written by brokers among the data for brokers and client libraries.

use super::BatchError;

/// The latest version of a control record's key.
const KEY_VERSION: i16 = 0;

/// The type of a control record; its key. The value is a message of the same name in Kafka's schemas.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ControlType {
    /// The producer's open transaction is aborted. Value: `EndTxnMarker`.
    Abort,
    /// The producer's open transaction is committed. Value: `EndTxnMarker`.
    Commit,
    /// A new leader of the quorum begins. Value: `LeaderChangeMessage`.
    LeaderChange,
    /// A snapshot begins. Value: `SnapshotHeaderRecord`.
    SnapshotHeader,
    /// A snapshot is complete. Value: `SnapshotFooterRecord`.
    SnapshotFooter,
    /// The quorum's feature level. Value: `KRaftVersionRecord`.
    KraftVersion,
    /// The quorum's voters. Value: `VotersRecord`.
    KraftVoters,
    /// A type unknown to this version; readers skip it.
    Unknown(i16),
}

impl ControlType {
    /// Its number on the wire.
    pub fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(id) => id,
        }
    }

    /// The type with this number.
    pub fn from_id(id: i16) -> Self {
        match id {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            _ => Self::Unknown(id),
        }
    }

    /// Encodes the key of a control record: version (i16), type (i16).
    pub fn key(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (KEY_VERSION.to_be_bytes(), self.id().to_be_bytes());
        [a, b, c, d]
    }

    /// Decodes the key of a control record. Later versions begin with the same fields.
    ///
    /// # Errors
    /// [`BatchError::ControlKey`] if the key is missing, too short or has a negative version.
    pub fn from_key(key: Option<&[u8]>) -> Result<Self, BatchError> {
        match key {
            Some([a, b, c, d, ..]) if i16::from_be_bytes([*a, *b]) >= 0 => {
                Ok(Self::from_id(i16::from_be_bytes([*c, *d])))
            }
            _ => Err(BatchError::ControlKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_written() {
        for id in -1..10 {
            let control = ControlType::from_id(id);
            assert_eq!(control.id(), id);
            assert_eq!(ControlType::from_key(Some(&control.key())), Ok(control));
        }
        assert_eq!(
            ControlType::from_key(Some(&[0, 9, 0, 1, 7])),
            Ok(ControlType::Commit)
        );
        for bad in [None, Some(&[0, 0, 0][..]), Some(&[0xff, 0xff, 0, 1])] {
            assert_eq!(ControlType::from_key(bad), Err(BatchError::ControlKey));
        }
    }
}
