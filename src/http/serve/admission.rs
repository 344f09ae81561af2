//! Who may stay when many come. Every connection holds a seat. Where there is none left, the connection that has
//! waited longest for its peer makes room: it is idle, or drips, or does not read. One that we work for never does.
//! So whoever only holds connections keeps nobody out, and one network cannot take the seats of others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::activity::{Activity, Millis};
use super::burst::Burst;

/// How many of a hundred seats are freed at once: looking for the longest wait takes a look at everybody.
const SHARE: usize = 2;

pub struct Admission {
    seats: usize,
    seats_per_network: usize,
    next_listener: AtomicU64,
    taken: Mutex<Taken>,
    /// Connections that exist, those included that were told to end and have not yet.
    open: AtomicUsize,
    closed: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    seats: HashMap<u64, Arc<Held>>,
    networks: HashMap<Network, usize>,
    crowded: Burst,
    full: Burst,
}

/// An IPv4 address, or the /64 that an IPv6 customer has to themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// What a connection is told from outside, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    Nothing,
    /// Finish what is under way.
    Stop,
    /// End at once.
    Cut,
}

/// A connection as others see it.
pub struct Held {
    pub activity: Activity,
    listener: u64,
    /// `None` for peers that are exempt.
    network: Option<Network>,
    told: AtomicU8,
    waker: AtomicWaker,
}

impl Held {
    fn tell(&self, what: Told) {
        self.told.fetch_max(what as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    /// What it was told so far; the task is woken when there is more.
    pub fn told(&self, cx: &mut Context<'_>) -> Told {
        self.waker.register(cx.waker());
        match self.told.load(Ordering::Acquire) {
            0 => Told::Nothing,
            1 => Told::Stop,
            _ => Told::Cut,
        }
    }

    /// Ready once it was told at least `what`.
    pub async fn until_told(&self, what: Told) {
        std::future::poll_fn(|cx| if self.told(cx) >= what { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// One connection's place; free again when it is dropped.
pub struct Seat {
    id: u64,
    held: Arc<Held>,
    admission: Arc<Admission>,
}

impl Seat {
    pub fn held(&self) -> &Arc<Held> {
        &self.held
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.admission.taken().free(self.id);
        self.admission.open.fetch_sub(1, Ordering::AcqRel);
        self.admission.closed.notify_waiters();
    }
}

impl Admission {
    pub fn new(seats: usize, seats_per_network: usize) -> Self {
        let (seats, seats_per_network) = (seats.max(1), seats_per_network.max(1));
        Self {
            seats,
            seats_per_network,
            next_listener: AtomicU64::new(0),
            taken: Mutex::default(),
            open: AtomicUsize::new(0),
            closed: Notify::new(),
        }
    }

    /// A name for a listener, by which its connections can be told.
    pub fn listener(&self) -> u64 {
        self.next_listener.fetch_add(1, Ordering::Relaxed)
    }

    /// A seat, unless all of them are held by connections that we work for. `peer` is `None` where it is exempt
    /// from the limit of its network.
    pub fn admit(self: &Arc<Self>, listener: u64, peer: Option<IpAddr>) -> Option<Seat> {
        let network = peer.map(Network::from);
        let mut taken = self.taken();
        let own = network.and_then(|network| taken.networks.get(&network).copied()).unwrap_or(0);
        let (crowded, fits) = if own >= self.seats_per_network {
            (true, taken.make_room(self.seats_per_network, |held| held.network == network))
        } else if taken.seats.len() >= self.seats {
            (true, taken.make_room(self.seats, |_| true))
        } else {
            (false, true)
        };
        let one_peer = peer.filter(|_| own >= self.seats_per_network);
        if !fits {
            taken.say_full(one_peer);
            return None;
        }
        if crowded {
            taken.say_crowded(one_peer);
        }
        let activity = Activity::default();
        activity.opened();
        let held = Held { activity, listener, network, told: AtomicU8::new(0), waker: AtomicWaker::new() };
        let held = Arc::new(held);
        self.open.fetch_add(1, Ordering::AcqRel);
        Some(Seat { id: taken.seat(&held), held, admission: Arc::clone(self) })
    }

    /// Waits until those who made room have really gone, so that the files they hold are free.
    pub async fn settled(&self) {
        let mut closed = pin!(self.closed.notified());
        loop {
            // Before the look, so that nobody leaves unnoticed in between.
            closed.as_mut().enable();
            if self.open.load(Ordering::Acquire) <= self.seats + share(self.seats) {
                return;
            }
            closed.as_mut().await;
            closed.set(self.closed.notified());
        }
    }

    /// Frees some seats where the system has no more to give.
    pub fn make_room(&self) -> bool {
        self.taken().make_room(self.seats, |_| true)
    }

    /// Tells the connections of a listener to finish.
    pub fn stop(&self, listener: u64) {
        for held in self.taken().seats.values().filter(|held| held.listener == listener) {
            held.tell(Told::Stop);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn share(of: usize) -> usize {
    (of * SHARE / 100).max(1)
}

impl Taken {
    fn seat(&mut self, held: &Arc<Held>) -> u64 {
        self.next += 1;
        self.seats.insert(self.next, Arc::clone(held));
        if let Some(network) = held.network {
            *self.networks.entry(network).or_default() += 1;
        }
        self.next
    }

    /// Harmless where the seat was taken away before.
    fn free(&mut self, id: u64) -> Option<Arc<Held>> {
        let held = self.seats.remove(&id)?;
        if let Some(network) = held.network
            && let Some(own) = self.networks.get_mut(&network)
        {
            *own -= 1;
            if *own == 0 {
                self.networks.remove(&network);
            }
        }
        Some(held)
    }

    /// Ends the connections that have waited longest, some of `of`; exempt peers last.
    fn make_room(&mut self, of: usize, among: impl Fn(&Held) -> bool) -> bool {
        let mut waiting: Vec<(bool, Millis, u64)> = self
            .seats
            .iter()
            .filter(|(_, held)| among(held))
            .filter_map(|(id, held)| Some((held.network.is_none(), held.activity.waiting_since()?, *id)))
            .collect();
        let share = share(of);
        if waiting.len() > share {
            waiting.select_nth_unstable(share);
            waiting.truncate(share);
        }
        for (_, _, id) in &waiting {
            if let Some(held) = self.free(*id) {
                held.tell(Told::Cut);
            }
        }
        !waiting.is_empty()
    }

    fn say_crowded(&mut self, peer: Option<IpAddr>) {
        let Some(unsaid) = self.crowded.say() else { return };
        let connections = self.seats.len();
        let peer = peer.map(tracing::field::display);
        tracing::warn!(
            connections,
            peer,
            unsaid,
            "there are as many connections as `[limits]` allows, of all or of this peer; those that waited longest are \
             closed"
        );
    }

    fn say_full(&mut self, peer: Option<IpAddr>) {
        let Some(unsaid) = self.full.say() else { return };
        let connections = self.seats.len();
        let peer = peer.map(tracing::field::display);
        tracing::warn!(
            connections,
            peer,
            unsaid,
            "a connection was refused: as many requests are under way as `[limits]` allows connections, of all or of \
             this peer; if it is a proxy, name it in `proxy.trusted`"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENER: u64 = 0;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    fn was_cut(seat: &Seat) -> bool {
        seat.held.told.load(Ordering::Acquire) == Told::Cut as u8
    }

    /// A seat whose holder has waited since `since`.
    fn seated(admission: &Arc<Admission>, peer: Option<IpAddr>) -> Seat {
        let seat = admission.admit(LISTENER, peer).expect("a seat");
        // Times are to the millisecond.
        std::thread::sleep(std::time::Duration::from_millis(2));
        seat
    }

    #[test]
    fn the_longest_wait_makes_room_and_work_never_does() {
        let admission = Arc::new(Admission::new(3, 3));
        let peers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(address);
        let [busy, oldest, newer] = peers.map(|peer| seated(&admission, peer));
        busy.held.activity.request_came(false);
        let fourth = seated(&admission, address("192.0.2.4"));
        assert_eq!([&busy, &oldest, &newer].map(was_cut), [false, true, false]);
        for seat in [&newer, &fourth] {
            seat.held.activity.request_came(false);
        }
        assert!(admission.admit(LISTENER, address("192.0.2.5")).is_none(), "all are worked for");
        fourth.held.activity.waits_for_body(true);
        let _fifth = seated(&admission, address("192.0.2.5"));
        assert!(was_cut(&fourth), "a body that does not come is no work");
        drop(busy);
        drop(oldest);
        seated(&admission, address("192.0.2.6"));
        assert!(!was_cut(&newer));
    }

    #[test]
    fn a_network_takes_seats_from_itself_alone() {
        let admission = Arc::new(Admission::new(100, 2));
        let other = seated(&admission, address("192.0.2.9"));
        let first = seated(&admission, address("2001:db8:0:1::1"));
        let _second = seated(&admission, address("2001:db8:0:1::2"));
        let _third = seated(&admission, address("2001:db8:0:1::3"));
        assert!(was_cut(&first) && !was_cut(&other));
        let _neighbour = seated(&admission, address("2001:db8:0:2::1"));
        assert_eq!(admission.taken().seats.len(), 4);
        // Who is exempt has as many as there are.
        let exempt: Vec<Seat> = (0..10).map(|_| seated(&admission, None)).collect();
        assert!(!exempt.iter().any(was_cut));
        drop((exempt, other, first, _second, _third, _neighbour));
        let taken = admission.taken();
        assert!(taken.seats.is_empty() && taken.networks.is_empty(), "nobody is counted for ever");
    }

    #[test]
    fn exempt_peers_make_room_last() {
        let admission = Arc::new(Admission::new(2, 2));
        let proxy = seated(&admission, None);
        let stranger = seated(&admission, address("192.0.2.1"));
        let next = seated(&admission, address("192.0.2.2"));
        assert!(was_cut(&stranger) && !was_cut(&proxy) && !was_cut(&next));
    }

    #[test]
    fn only_the_connections_of_a_listener_are_told_to_stop() {
        let admission = Arc::new(Admission::new(9, 9));
        let (one, other) = (admission.listener(), admission.listener());
        let [here, there] = [one, other].map(|listener| admission.admit(listener, None).expect("a seat"));
        admission.stop(one);
        let told = |seat: &Seat| seat.held.told.load(Ordering::Acquire);
        assert_eq!((told(&here), told(&there)), (Told::Stop as u8, Told::Nothing as u8));
    }
}
