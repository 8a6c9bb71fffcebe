//! Why a connection or flow ended, or never came to be.

/// The side that was the cause. Only the backend's count against a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The client.
    Client,
    /// The backend.
    Backend,
    /// awe4lb itself: a rule, a limit, a shutdown.
    Us,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $side:ident, $failed:literal;)*) => {
        /// One reason for each end. `label` is what metrics, logs and the API call it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EndReason { $($(#[$doc])* $variant,)* }

        impl EndReason {
            /// All of them, in a fixed order; an index into it is `as_index`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for metrics, logs and the API. Stable.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// Who was the cause.
            pub fn side(self) -> Side {
                match self { $(Self::$variant => Side::$side,)* }
            }

            /// Whether this counts as refused or failed, rather than as a normal end.
            pub fn is_failure(self) -> bool {
                match self { $(Self::$variant => $failed,)* }
            }

            /// Position in [`Self::ALL`].
            pub fn as_index(self) -> usize {
                self as usize
            }
        }
    };
}

reasons! {
    /// Both directions ended cleanly.
    Finished = "finished", Client, false;
    /// The client reset the connection.
    ClientReset = "client-reset", Client, false;
    /// The backend reset the connection.
    BackendReset = "backend-reset", Backend, true;
    /// No byte in either direction for the idle time.
    IdleTimeout = "idle-timeout", Us, false;
    /// One direction ended and the other was silent too long.
    HalfCloseTimeout = "half-close-timeout", Us, false;
    /// The connection reached its greatest age.
    Lifetime = "lifetime", Us, false;
    /// Nothing routable arrived before the handshake deadline.
    HandshakeTimeout = "handshake-timeout", Client, true;
    /// The client left before it was routed.
    ClientGone = "client-gone", Client, true;
    /// What should have been a ClientHello was not one.
    BadClientHello = "bad-client-hello", Client, true;
    /// A peer that must send a PROXY header sent something else.
    BadProxyHeader = "bad-proxy-header", Client, true;
    /// What came before the ClientHello is no request for TLS that this listener understands.
    BadPreamble = "bad-preamble", Client, true;
    /// The backend does not take TLS, which its client wants to pass through.
    BackendRefusedTls = "backend-refused-tls", Backend, true;
    /// The client sent no server name where the listener's `requireSni` asks for one.
    SniMissing = "sni-missing", Client, true;
    /// A challenge of a certificate authority was answered.
    ChallengeAnswered = "challenge-answered", Us, false;
    /// The TLS handshake failed.
    TlsHandshakeFailed = "tls-handshake-failed", Client, true;
    /// TLS broke after the handshake (bad record, missing close_notify).
    TlsError = "tls-error", Client, true;
    /// A rule says reject.
    RuleReject = "rule-reject", Us, true;
    /// No rule matched.
    NoRule = "no-rule", Us, true;
    /// The pool has no usable backend.
    NoBackend = "no-backend", Backend, true;
    /// Every usable backend is at its maxConnections.
    BackendsFull = "backends-full", Us, true;
    /// Every dial was refused or failed.
    DialFailed = "dial-failed", Backend, true;
    /// The last dial timed out.
    DialTimeout = "dial-timeout", Backend, true;
    /// The listener is at its maxConnections.
    ListenerFull = "listener-full", Us, true;
    /// The listener's access rules deny the client.
    AccessDenied = "access-denied", Us, true;
    /// Not an end: an access rule in shadow would have denied the client.
    AccessShadow = "access-denied-shadow", Us, false;
    /// Access rules that deny the client came into force while it was connected.
    AccessRevoked = "access-revoked", Us, false;
    /// Somebody closed it by hand.
    AdminClosed = "admin-closed", Us, false;
    /// The client is at its maxConnectionsPerClient.
    ClientFull = "client-full", Us, true;
    /// More than newConnectionsPerSecond.
    ListenerRate = "listener-rate", Us, true;
    /// More than newPerClientPerSecond.
    ClientRate = "client-rate", Us, true;
    /// The flow table is full.
    FlowTableFull = "flow-table-full", Us, true;
    /// The client is at its maxFlowsPerClient.
    ClientFlowLimit = "client-flow-limit", Us, true;
    /// A UDP flow was evicted for a new one.
    FlowEvicted = "flow-evicted", Us, true;
    /// A UDP flow never saw an answer.
    Unanswered = "unanswered", Backend, false;
    /// The backend left and its drain time passed.
    BackendRemoved = "backend-removed", Us, false;
    /// The backend went down, and its pool says that what is open ends or goes elsewhere.
    BackendDown = "backend-down", Backend, false;
    /// A UDP flow had all the datagrams it may have.
    FlowComplete = "flow-complete", Us, false;
    /// A QUIC client's first datagrams were no ClientHello that anyone should answer.
    BadInitial = "bad-initial", Client, true;
    /// Not ends but datagrams, as all that follow: one was cut by the kernel.
    DatagramTruncated = "datagram-truncated", Us, false;
    /// The kernel had no room in a listening socket's queue.
    DatagramOverflow = "datagram-overflow", Us, false;
    /// Beyond packetsPerSecond or bytesPerSecond of the listener, a client or a flow.
    DatagramRate = "datagram-rate", Us, false;
    /// Beyond maxReplyRatio.
    DatagramReplyRatio = "datagram-reply-ratio", Us, false;
    /// The answer that came after the last one a flow may have.
    DatagramSurplus = "datagram-surplus", Us, false;
    /// The kernel did not take it for sending.
    DatagramUnsent = "datagram-unsent", Us, false;
    /// It came from one of our own listeners, or from an address nobody can answer.
    DatagramBadSource = "datagram-bad-source", Client, false;
    /// The listener was removed.
    ListenerRemoved = "listener-removed", Us, false;
    /// The node is shutting down and its drain time passed.
    Shutdown = "shutdown", Us, false;
    /// Out of file descriptors or memory.
    ResourceExhausted = "resource-exhausted", Us, true;
}
