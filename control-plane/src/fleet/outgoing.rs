//! What waits to be sent on one stream. Latest wins: a newer manifest takes the place of an older one and of the
//! resources that were asked for with it, so nothing here grows with the number of changes.

use std::{collections::VecDeque, sync::Arc};

use awe4lb_proto::{
    Chunks,
    resources::EncodedResource,
    v1::{self, to_node::Message},
};

/// In order of urgency.
#[derive(Default)]
pub struct Outgoing {
    first: VecDeque<Message>,
    ack: Option<v1::CounterAck>,
    challenges: VecDeque<v1::Challenges>,
    overlays: VecDeque<v1::Overlay>,
    manifest: VecDeque<v1::Manifest>,
    chunks: Option<Chunks>,
    resources: VecDeque<Arc<EncodedResource>>,
}

impl Outgoing {
    /// Before everything else.
    pub fn say(&mut self, message: Message) {
        self.first.push_back(message);
    }

    /// An acknowledgement covers those before it.
    pub fn acknowledge(&mut self, ack: v1::CounterAck) {
        self.ack = Some(ack);
    }

    /// In place of those before, also of the rest of one that was begun.
    pub fn challenges(&mut self, messages: Vec<v1::Challenges>) {
        self.challenges = messages.into();
    }

    /// In place of one of the same pool.
    pub fn overlay(&mut self, overlay: v1::Overlay) {
        match self.overlays.iter_mut().find(|waiting| waiting.pool == overlay.pool) {
            Some(waiting) => *waiting = overlay,
            None => self.overlays.push_back(overlay),
        }
    }

    /// In place of the manifest before, and of its resources.
    pub fn manifest(&mut self, messages: Vec<v1::Manifest>) {
        self.manifest = messages.into();
        self.resources.clear();
        self.chunks = None;
    }

    /// Asked for with the manifest that was sent.
    pub fn resource(&mut self, resource: Arc<EncodedResource>) {
        self.resources.push_back(resource);
    }

    /// How many resources wait.
    pub fn resources(&self) -> usize {
        self.resources.len()
    }

    /// Whether [`Self::next`] has something.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
            && self.ack.is_none()
            && self.challenges.is_empty()
            && self.overlays.is_empty()
            && self.manifest.is_empty()
            && self.chunks.is_none()
            && self.resources.is_empty()
    }

    /// The next of what is still worth sending before a goodbye: no configuration.
    pub fn next_urgent(&mut self) -> Option<Message> {
        if let Some(message) = self.first.pop_front() {
            return Some(message);
        }
        self.ack.take().map(Message::CounterAck)
    }

    /// The next message.
    pub fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.first.pop_front() {
            return Some(message);
        }
        if let Some(ack) = self.ack.take() {
            return Some(Message::CounterAck(ack));
        }
        if let Some(challenges) = self.challenges.pop_front() {
            return Some(Message::Challenges(challenges));
        }
        if let Some(overlay) = self.overlays.pop_front() {
            return Some(Message::Overlay(overlay));
        }
        if let Some(manifest) = self.manifest.pop_front() {
            return Some(Message::Manifest(manifest));
        }
        loop {
            if let Some(chunk) = self.chunks.as_mut().and_then(Iterator::next) {
                return Some(Message::Resource(chunk));
            }
            self.chunks = self.resources.pop_front().map(|resource| resource.chunks());
            self.chunks.as_ref()?;
        }
    }
}
