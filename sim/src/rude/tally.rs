//! The responses that rude clients received.

use std::collections::BTreeMap;

/// The responses that rude clients received in a run.
#[derive(Default)]
pub(crate) struct RudeTally {
    /// Responses by API and version.
    pub(crate) answered: BTreeMap<(&'static str, i16), u64>,
    /// The APIs and versions that ApiVersions advertises.
    pub(crate) served: Vec<(&'static str, i16)>,
}

impl RudeTally {
    /// As a report lists them.
    pub(crate) fn requests(&self) -> BTreeMap<String, u64> {
        let answered = self.answered.iter().map(|(which, n)| (*which, *n));
        let none = self.served.iter().map(|which| (*which, 0));
        let named = |((api, version), n)| (format!("{api} {version}"), n);
        none.chain(answered).map(named).collect()
    }
}
