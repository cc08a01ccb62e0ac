//! Listens to what the broker's code says of itself: rare states, counted; and its log, told when a run is repeated.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

use crate::world::World;

/// The names reached so far. Listening ends when it is dropped.
pub struct Names {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    _guard: DefaultGuard,
}

impl Names {
    /// How often each was reached.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

impl Listener {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "reached" || self.trace && *metadata.level() <= tracing::Level::DEBUG
    }
}

struct Listener {
    world: World,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    trace: bool,
}

/// Listens on this thread. With `trace`, events are told on stderr with the world's time.
pub fn listen(world: &World, trace: bool) -> Names {
    let counts: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let listener = Listener {
        world: world.clone(),
        counts: Arc::clone(&counts),
        trace,
    };
    let guard = tracing::subscriber::set_default(Registry::default().with(listener));
    Names {
        counts,
        _guard: guard,
    }
}

#[derive(Default)]
struct Text {
    name: Option<String>,
    all: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "name" {
            self.name = Some(format!("{value:?}").trim_matches('"').to_owned());
        }
        let _ = write!(self.all, " {}={value:?}", field.name());
    }
}

impl<S: Subscriber> Layer<S> for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // What nobody listens to costs a load.
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let reached = event.metadata().target() == "reached";
        let mut text = Text::default();
        event.record(&mut text);
        if reached && let Some(name) = text.name {
            *self
                .counts
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .entry(name)
                .or_insert(0) += 1;
        }
        if self.trace {
            let at = self.world.exec().now() as f64 / 1e9;
            eprintln!(
                "{at:>12.6} {:>5} {}{}",
                event.metadata().level(),
                event.metadata().target(),
                text.all
            );
        }
    }
}
