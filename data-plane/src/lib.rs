//! awe4lb-data-plane
