//! A node of awe4lb: sockets and workers (`traffic`) run what the control half (`control`) was told.

pub mod control;
