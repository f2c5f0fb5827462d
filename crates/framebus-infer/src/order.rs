//! Answers of one camera go out in the order in which its frames went to workers.

use std::sync::{Mutex, PoisonError};

/// One camera's line: bounded places for answers that came before their turn; nothing is
/// allocated, they are swapped in and out.
#[derive(Debug)]
pub struct Order<A> {
    line: Mutex<Line<A>>,
}

#[derive(Debug)]
struct Line<A> {
    /// Ticket of the next answer to go out.
    turn: u64,
    places: Box<[Place<A>]>,
}

#[derive(Debug, Default)]
struct Place<A> {
    taken: bool,
    answer: A,
}

impl<A: Default> Order<A> {
    /// With so many answers outstanding at most.
    #[must_use]
    pub fn new(unanswered: usize) -> Self {
        let place = |_| Place { taken: false, answer: A::default() };
        Self { line: Mutex::new(Line { turn: 0, places: (0..unanswered).map(place).collect() }) }
    }

    /// Hands `answer` to `send` when it is its turn, and after it those that waited
    /// for it; otherwise leaves it in a place and swaps an empty one in. Returns how
    /// many went out. Each ticket comes once, and is less than `unanswered` ahead
    /// of the turn.
    pub fn publish(&self, ticket: u64, answer: &mut A, mut send: impl FnMut(&mut A)) -> usize {
        // Kept while sending: another worker's next answer of this camera must wait.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let Line { turn, places } = &mut *line;
        let size = places.len() as u64;
        if ticket != *turn {
            let place = &mut places[(ticket % size) as usize];
            std::mem::swap(&mut place.answer, answer);
            place.taken = true;
            return 0;
        }
        send(answer);
        let mut sent = 1;
        *turn += 1;
        while std::mem::take(&mut places[(*turn % size) as usize].taken) {
            send(&mut places[(*turn % size) as usize].answer);
            sent += 1;
            *turn += 1;
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(order: &Order<u64>, ticket: u64) -> Vec<u64> {
        let mut sent = Vec::new();
        let mut answer = ticket;
        let count = order.publish(ticket, &mut answer, |answer| sent.push(*answer));
        assert_eq!(count, sent.len());
        sent
    }

    #[test]
    fn answers_go_out_in_turn() {
        let order = Order::new(4);
        assert_eq!(publish(&order, 0), [0]);
        assert!(publish(&order, 2).is_empty());
        assert!(publish(&order, 4).is_empty());
        assert!(publish(&order, 3).is_empty());
        assert_eq!(publish(&order, 1), [1, 2, 3, 4]);
        assert_eq!(publish(&order, 5), [5]);
    }

    #[test]
    fn threads_that_finish_in_any_order_are_put_in_order() {
        const TICKETS: u64 = 2000;
        const WORKERS: u64 = 4;
        let order = Order::new(WORKERS as usize);
        let sent = Mutex::new(Vec::new());
        let (next, open) = (Mutex::new(0), Mutex::new(0_u64));
        let freed = std::sync::Condvar::new();
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let open_now = open.lock().expect("lock");
                        let mut open_now =
                            freed.wait_while(open_now, |open| *open >= WORKERS).expect("lock");
                        let mut next_ticket = next.lock().expect("lock");
                        let mut answer = *next_ticket;
                        if answer == TICKETS {
                            return;
                        }
                        *next_ticket += 1;
                        *open_now += 1;
                        drop((next_ticket, open_now));
                        std::thread::yield_now();
                        let ticket = answer;
                        let out = order.publish(ticket, &mut answer, |answer| {
                            sent.lock().expect("lock").push(*answer);
                        });
                        *open.lock().expect("lock") -= out as u64;
                        freed.notify_all();
                    }
                });
            }
        });
        assert_eq!(sent.into_inner().expect("lock"), (0..TICKETS).collect::<Vec<_>>());
    }
}
