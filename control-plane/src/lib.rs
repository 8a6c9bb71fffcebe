//! awe4lb-control-plane
