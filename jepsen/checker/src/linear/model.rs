//! What a model defines: a sequential object type.

use std::fmt::Debug;
use std::hash::Hash;

use brokkr_history::Operation;

/// The object and call of an operation; `None` if the model does not cover it.
pub type ObjectCall<M> = Option<(<M as Model>::Object, <M as Model>::Call)>;

/// A sequential object type.
pub trait Model {
    /// Identifies an object.
    type Object: Clone + Eq + Ord + Hash + Debug;
    /// State of an object.
    type State: Clone + Eq + Hash + Debug;
    /// A call of an object, with its answer if that is known.
    type Call: Clone + Eq + Hash + Debug;

    /// Name of the operations in messages.
    const NAME: &'static str;
    /// Names of the operations that it covers.
    const NAMES: &'static [&'static str];
    /// The invariant (by the id of `sim/INVARIANTS.md`) that a history breaks which is not linearizable.
    const INVARIANT: Option<&'static str> = None;

    /// Decodes an operation; `None` if this model does not cover it. If the outcome is unknown, `ended` is the invocation.
    ///
    /// # Errors
    /// A description of what is malformed.
    fn call(&self, ended: &Operation) -> Result<ObjectCall<Self>, String>;

    /// The initial state of an object.
    fn initial(&self, object: &Self::Object) -> Self::State;

    /// The state after the call, or `None` if the object may not answer so. With `answer_known` false any answer is accepted.
    fn step(&self, state: &Self::State, call: &Self::Call, answer_known: bool) -> Option<Self::State>;

    /// Whether the call never changes the state.
    fn is_read(&self, call: &Self::Call) -> bool;
}
