//! Sockets that flows to different backends share: an answer's sender tells whose it is.
//!
//! A socket carries at most one flow to each address. So flows need as many sockets, and ports, as the busiest backend has
//! flows, rather than one each.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use super::{
    super::reactor::{Reactor, ReadyList, Token},
    upstream::{Overflow, socket},
};
use crate::sys::options;

/// Marks the tag of a carrier among those of flows.
const CARRIER: u64 = 1 << 63;

/// All of one server.
#[derive(Default)]
pub(super) struct Carriers {
    /// By place; nobody where no flow is carried.
    places: Rc<RefCell<Places>>,
}

#[derive(Default)]
struct Places {
    v4: Family,
    v6: Family,
}

#[derive(Default)]
struct Family {
    carriers: Vec<Option<Rc<Carrier>>>,
    /// Of each address: places where it had a flow and has none any more, and the first where it never had one.
    free: HashMap<SocketAddr, (Vec<u32>, u32)>,
}

/// One shared socket.
pub(super) struct Carrier {
    fd: OwnedFd,
    token: Token,
    reactor: Rc<Reactor>,
    /// Tags of flows.
    flows: RefCell<HashMap<SocketAddr, u64>>,
    /// Also those that are not in `flows` yet.
    lanes: Cell<u32>,
    overflow: Overflow,
}

/// A flow's place on a carrier; given back when dropped, and the socket closed with the last.
pub(super) struct Lane {
    carrier: Rc<Carrier>,
    to: SocketAddr,
    place: u32,
    places: Rc<RefCell<Places>>,
}

impl Places {
    fn family(&mut self, of: SocketAddr) -> &mut Family {
        if of.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

impl Carriers {
    /// A place for a flow to this address. `ecn`: see [`options::ask_for_ecn`]; a socket keeps what it was made with.
    pub(super) fn lane(
        &self,
        to: SocketAddr,
        ecn: bool,
        reactor: &Rc<Reactor>,
        list: &Rc<ReadyList>,
    ) -> io::Result<Lane> {
        let mut places = self.places.borrow_mut();
        let family = places.family(to);
        let (released, next) = family.free.entry(to).or_default();
        let place = released.last().copied().unwrap_or(*next);
        let carrier = match family.carriers.get(place as usize).and_then(Option::as_ref) {
            Some(carrier) => carrier.clone(),
            None => {
                let carrier = Carrier::open(to, place, ecn, reactor, list)?;
                if family.carriers.len() <= place as usize {
                    family.carriers.resize_with(place as usize + 1, || None);
                }
                family.carriers[place as usize] = Some(carrier.clone());
                carrier
            }
        };
        if released.pop().is_none() {
            *next += 1;
        }
        carrier.lanes.set(carrier.lanes.get() + 1);
        drop(places);
        Ok(Lane { carrier, to, place, places: self.places.clone() })
    }

    /// The carrier that a tag is of; `None`: it is a flow's.
    pub(super) fn of_tag(&self, tag: u64) -> Option<Option<Rc<Carrier>>> {
        if tag & CARRIER == 0 {
            return None;
        }
        let places = self.places.borrow();
        let family = if tag & V6 == 0 { &places.v4 } else { &places.v6 };
        Some(family.carriers.get(tag as u32 as usize).cloned().flatten())
    }
}

/// Beside [`CARRIER`].
const V6: u64 = 1 << 62;

impl Carrier {
    fn open(
        to: SocketAddr,
        place: u32,
        ecn: bool,
        reactor: &Rc<Reactor>,
        list: &Rc<ReadyList>,
    ) -> io::Result<Rc<Self>> {
        let fd = socket(to, ecn)?;
        options::ask_for_errors(fd.as_fd(), to.is_ipv6())?;
        // Now, and not with the first datagram: that there is no port left is to be known here.
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        rustix::net::bind(&fd, &SocketAddr::new(any, 0))?;
        let tag = CARRIER | if to.is_ipv6() { V6 } else { 0 } | u64::from(place);
        let token = reactor.register_listed(fd.as_fd(), list, tag)?;
        Ok(Rc::new(Self {
            fd,
            token,
            reactor: reactor.clone(),
            flows: RefCell::default(),
            lanes: Cell::new(0),
            overflow: Overflow::default(),
        }))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn overflow(&self) -> &Overflow {
        &self.overflow
    }

    /// The tag of the flow to an address. Whatever comes from elsewhere is nobody's.
    pub(super) fn flow_to(&self, address: SocketAddr) -> Option<u64> {
        self.flows.borrow().get(&address).copied()
    }
}

impl Lane {
    /// Answers are those of the flow with this tag from now on.
    pub(super) fn carry(&self, tag: u64) {
        self.carrier.flows.borrow_mut().insert(self.to, tag);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.carrier.fd()
    }

    pub(super) fn overflow(&self) -> &Overflow {
        self.carrier.overflow()
    }

    pub(super) fn to(&self) -> SocketAddr {
        self.to
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.carrier.flows.borrow_mut().remove(&self.to);
        self.carrier.lanes.set(self.carrier.lanes.get() - 1);
        let mut places = self.places.borrow_mut();
        let family = places.family(self.to);
        if let Some((released, next)) = family.free.get_mut(&self.to) {
            released.push(self.place);
            if released.len() == *next as usize {
                // It has no flow at all: nothing of it is remembered.
                family.free.remove(&self.to);
            }
        }
        if self.carrier.lanes.get() == 0
            && let Some(place) = family.carriers.get_mut(self.place as usize)
        {
            *place = None;
            while family.carriers.last().is_some_and(Option::is_none) {
                family.carriers.pop();
            }
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.reactor.forget(self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 9))
    }

    #[test]
    fn flows_to_different_backends_share_and_nothing_stays_behind() {
        let (carriers, reactor, list) = (Carriers::default(), Reactor::new().unwrap(), Rc::default());
        let lane = |to| carriers.lane(address(to), false, &reactor, &list).unwrap();
        let open = || carriers.places.borrow().v4.carriers.iter().flatten().count();
        let (a1, b1, a2) = (lane(1), lane(2), lane(1));
        a1.carry(11);
        b1.carry(21);
        a2.carry(12);
        assert_eq!(open(), 2, "two flows to one backend need two sockets, one to another none");
        assert!(Rc::ptr_eq(&a1.carrier, &b1.carrier));
        assert_eq!((a1.carrier.flow_to(address(1)), a2.carrier.flow_to(address(2))), (Some(11), None));
        drop(a1);
        let (a3, b2) = (lane(1), lane(2));
        assert!(Rc::ptr_eq(&a3.carrier, &b1.carrier), "a place that was given back is taken first");
        assert!(Rc::ptr_eq(&b2.carrier, &a2.carrier));
        drop((b1, a2, a3, b2));
        let places = carriers.places.borrow();
        assert!(places.v4.carriers.is_empty() && places.v4.free.is_empty());
    }
}
