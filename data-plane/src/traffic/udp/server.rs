//! One listening socket on one worker, and the flows that came in through it: what the task knows, and a turn of it.

use std::{
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use awe4lb_engine::flows::FlowTable;
use awe4lb_model::UdpSettings;

use super::{
    super::{
        local::LocalListener,
        reactor::{ReadyList, Token},
        timers::Timer,
        worker::Worker,
    },
    Entrance,
    carriers::Carriers,
    flow::Flow,
    newcomers::Newcomers,
    quic::Quic,
    room,
    upstream::Overflow,
};
use crate::sys::options;

/// How often flows are looked at for their end.
pub(super) const SWEEP: Duration = Duration::from_millis(500);
/// While the node goes, a flow that was silent for this long holds it up no more.
const DRAIN_IDLE: Duration = Duration::from_secs(2);

pub(super) struct Server<'a> {
    pub(super) worker: Rc<Worker>,
    pub(super) entrance: Entrance,
    pub(super) listener: Rc<LocalListener>,
    pub(super) socket: &'a OwnedFd,
    pub(super) token: Token,
    /// Flows by the address of ours that clients chose: the only one, unless the socket is bound to all.
    pub(super) bound: Option<IpAddr>,
    pub(super) table: FlowTable<Flow>,
    pub(super) settings: UdpSettings,
    pub(super) answers: Rc<ReadyList>,
    pub(super) carriers: Carriers,
    /// Flows that have a socket of their own.
    pub(super) own_sockets: u32,
    /// The most of them.
    pub(super) own_most: u32,
    pub(super) sweep: Option<Timer>,
    pub(super) round: u32,
    /// The state of access rules that flows were last looked at by.
    pub(super) seen: u32,
    /// What the kernel last said of the socket's full queue.
    pub(super) overflow: Overflow,
    pub(super) newcomers: Newcomers,
    /// Of this batch.
    pub(super) evictions: u32,
    /// Whether runs are taken as one.
    takes_runs: bool,
    /// Whether marks for congestion are asked for.
    takes_marks: bool,
    /// Of a listener of QUIC.
    pub(super) quic: Option<Box<Quic>>,
}

impl<'a> Server<'a> {
    pub(super) fn new(worker: Rc<Worker>, entrance: Entrance, socket: &'a OwnedFd, token: Token) -> Self {
        let ip = entrance.key.address.ip();
        let bound = (!ip.is_unspecified()).then_some(ip);
        if bound.is_none()
            && let Err(error) = options::ask_for_local_address(socket.as_fd(), ip.is_ipv6())
        {
            tracing::error!(address = %entrance.key.address, %error, "answers may leave from another address than was asked");
        }
        let listener = entrance.listener.borrow().clone();
        let settings = listener.run.udp;
        let mut server = Self {
            seen: worker.access_state(),
            worker,
            entrance,
            listener,
            socket,
            token,
            bound,
            table: FlowTable::new(settings),
            settings,
            answers: Rc::default(),
            carriers: Carriers::default(),
            own_sockets: 0,
            own_most: room::own_sockets(),
            sweep: None,
            round: 0,
            overflow: Overflow::default(),
            newcomers: Newcomers::default(),
            evictions: 0,
            takes_runs: false,
            takes_marks: false,
            quic: None,
        };
        server.take_runs();
        server.take_marks();
        server.know_quic();
        server
    }

    /// Never ready.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.load_configuration();
        let worker = self.worker.clone();
        let now = worker.timers().now();
        let scratch = &mut *worker.udp_scratch();
        self.receive_letters(now);
        let more_answers = self.receive_from_backends(scratch, now);
        let more_questions = self.receive_from_clients(scratch, now);
        let more_newcomers = self.begin_waiting(now);
        self.sweep(now, cx);
        if more_answers || more_questions || more_newcomers {
            cx.waker().wake_by_ref();
        } else {
            worker.reactor().wake_with(self.token, cx);
            self.answers.wake_with(cx);
            if let Some(quic) = &self.quic
                && !quic.mailbox.wake_with(cx.waker())
            {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Flows that are there keep what they started with; their limits are those of now.
    fn load_configuration(&mut self) {
        let listener = self.entrance.listener.borrow().clone();
        if !Rc::ptr_eq(&listener, &self.listener) {
            self.listener = listener.clone();
            drop(listener);
            self.know_quic();
        }
        let mut settings = self.listener.run.udp;
        if !self.worker.is_accepting() {
            settings.idle_timeout = settings.idle_timeout.min(DRAIN_IDLE);
            settings.unanswered_timeout = settings.unanswered_timeout.min(DRAIN_IDLE);
        }
        if settings != self.settings {
            self.settings = settings;
            self.take_marks();
            self.table.set_settings(settings);
            self.take_runs();
        }
    }

    /// Whether clients are known by their connection ids, and whether their hellos are read.
    fn know_quic(&mut self) {
        let run = &self.listener.run;
        let reads_hellos = run.table.needs_client_hello();
        match &mut self.quic {
            Some(quic) => quic.reads_hellos = reads_hellos,
            None if reads_hellos || run.udp.quic => {
                self.quic = Some(Box::new(Quic::new(&run.connection_ids, reads_hellos)));
            }
            None => {}
        }
    }

    /// Marks cost something with every datagram, so that only who wants them gets them.
    fn take_marks(&mut self) {
        if self.settings.ecn != self.takes_marks {
            self.takes_marks = self.settings.ecn;
            let v6 = self.entrance.key.address.is_ipv6();
            // Without it marks are lost, which is only slower.
            let _ = options::ask_for_ecn(self.socket.as_fd(), v6, self.takes_marks);
        }
    }

    /// A run of datagrams is one message; where each counts on its own they have to be told apart.
    fn take_runs(&mut self) {
        let wanted = !self.table.counts_requests();
        if wanted != self.takes_runs {
            self.takes_runs = wanted;
            // Without it datagrams come one by one, which is only slower.
            let _ = options::ask_for_runs(self.socket.as_fd(), wanted);
        }
    }
}
