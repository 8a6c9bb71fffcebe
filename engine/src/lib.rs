//! awe4lb-engine
