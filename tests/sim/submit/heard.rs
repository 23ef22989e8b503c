//! The events that a client's process has told, until they are looked at.

use std::sync::{Arc, Mutex, PoisonError};

use segue::ClientEvent;
use segue::client::Subscription;
use segue::client::parts::Events;

#[derive(Default)]
pub struct Heard {
    events: Arc<Mutex<Vec<ClientEvent>>>,
    subscription: Option<Subscription>,
}

impl Heard {
    pub fn listen(events: &Arc<Events>) -> Self {
        let heard: Arc<Mutex<Vec<ClientEvent>>> = Arc::default();
        let told = Arc::clone(&heard);
        let subscription = events.subscribe(Arc::new(move |event| {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        }));
        Self { events: heard, subscription: Some(subscription) }
    }

    pub fn take(&self) -> Vec<ClientEvent> {
        debug_assert!(self.subscription.is_some());
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
