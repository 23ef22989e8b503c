//! Paces a storm: so many at once, and the others in random order.
//!
//! A permit that is on its way to somebody who has given up comes back by being dropped, so none
//! is ever lost.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::oneshot;

pub struct Pacer(RefCell<Inner>);

struct Inner {
    free: usize,
    queue: Vec<oneshot::Sender<Permit>>,
    random: u64,
}

/// The right to dial; given back when dropped.
pub struct Permit(Rc<Pacer>);

impl Pacer {
    pub fn new(at_once: usize, seed: u64) -> Rc<Self> {
        // Xorshift stays at zero for ever, so the seed must not be zero.
        let random = seed | 1;
        Rc::new(Self(RefCell::new(Inner { free: at_once.max(1), queue: Vec::new(), random })))
    }

    pub async fn enter(self: &Rc<Self>) -> Permit {
        loop {
            let waiting = {
                let mut inner = self.0.borrow_mut();
                if inner.free > 0 {
                    inner.free -= 1;
                    return Permit(self.clone());
                }
                let (sender, receiver) = oneshot::channel();
                inner.queue.push(sender);
                receiver
            };
            if let Ok(permit) = waiting.await {
                return permit;
            }
        }
    }

    fn next(&self) -> Option<oneshot::Sender<Permit>> {
        let mut inner = self.0.borrow_mut();
        inner.queue.retain(|sender| !sender.is_closed());
        if inner.queue.is_empty() {
            inner.free += 1;
            return None;
        }
        inner.random ^= inner.random << 13;
        inner.random ^= inner.random >> 7;
        inner.random ^= inner.random << 17;
        let at = (inner.random % inner.queue.len() as u64) as usize;
        Some(inner.queue.swap_remove(at))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(next) = self.0.next() {
            // Should the receiver have just gone, the permit within the error is dropped in turn.
            drop(next.send(Permit(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn never_more_at_once_and_nobody_is_forgotten() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let (inside, most, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::default());
        let order: Rc<RefCell<Vec<usize>>> = done;
        local.block_on(&runtime, async {
            let pacer = Pacer::new(3, 42);
            let mut tasks = Vec::new();
            for index in 0..50 {
                let (pacer, inside, most) = (pacer.clone(), inside.clone(), most.clone());
                let order = order.clone();
                tasks.push(tokio::task::spawn_local(async move {
                    let _permit = pacer.enter().await;
                    inside.set(inside.get() + 1);
                    most.set(inside.get().max(most.get()));
                    tokio::task::yield_now().await;
                    order.borrow_mut().push(index);
                    inside.set(inside.get() - 1);
                }));
            }
            tokio::task::yield_now().await;
            // Some give up while they wait; their permits must not be lost.
            for task in tasks.iter().skip(10).step_by(3) {
                task.abort();
            }
            for task in tasks {
                let _ = task.await;
            }
            assert_eq!(pacer.0.borrow().free, 3);
        });
        assert_eq!(most.get(), 3);
        let order = order.borrow();
        assert!(order.len() >= 36);
        assert!(!order.is_sorted(), "the order is not random");
    }
}
