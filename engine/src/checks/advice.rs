//! What an agent advises, in the words of HAProxy's `agent-check`: `up 75% maxconn:30 # a comment`.

use super::Verdict;

/// Beside whether a backend is healthy. What was not said is `None`, and stays as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Advice {
    /// The weight, in percent of the configured one; at most [`Advice::MAX_WEIGHT_PERCENT`].
    pub weight_percent: Option<u32>,
    /// The admin state.
    pub admin: Option<AgentAdmin>,
    /// The health in the agent's own word. An agent may speak of the weight alone.
    pub health: Option<AgentHealth>,
    /// How many connections the backend takes.
    pub max_connections: Option<u32>,
}

/// An admin state, a fact apart from health: an agent may say both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentAdmin {
    /// Neither of the others.
    Ready,
    /// Nothing new.
    Drain,
    /// Nothing at all.
    Maint,
}

/// How the agent calls the health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentHealth {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// It does not, although it should.
    Failed,
    /// It does not, as somebody stopped it.
    Stopped,
}

impl AgentHealth {
    fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

impl Advice {
    /// A greater weight is not understood: an agent does not get its backend all the traffic.
    pub const MAX_WEIGHT_PERCENT: u32 = 1000;

    /// Reads one line. Of two words about the same the last one counts; unknown ones do not. `None` when no word is known.
    fn of_line(line: &[u8]) -> Option<Self> {
        let words = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut advice = Self::default();
        for word in words.split(|byte| byte.is_ascii_whitespace() || *byte == b',') {
            advice.take(&word.to_ascii_lowercase());
        }
        (advice != Self::default()).then_some(advice)
    }

    fn take(&mut self, word: &[u8]) {
        match word {
            b"ready" => self.admin = Some(AgentAdmin::Ready),
            b"drain" => self.admin = Some(AgentAdmin::Drain),
            b"maint" => self.admin = Some(AgentAdmin::Maint),
            b"up" => self.health = Some(AgentHealth::Up),
            b"down" => self.health = Some(AgentHealth::Down),
            b"fail" | b"failed" => self.health = Some(AgentHealth::Failed),
            b"stopped" => self.health = Some(AgentHealth::Stopped),
            _ => {
                if let Some(percent) = word.strip_suffix(b"%").and_then(number) {
                    if percent <= Self::MAX_WEIGHT_PERCENT {
                        self.weight_percent = Some(percent);
                    }
                } else if let Some(connections) = word.strip_prefix(b"maxconn:").and_then(number) {
                    self.max_connections = Some(connections);
                }
            }
        }
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// What a whole line of an agent says.
pub(super) fn verdict(line: &[u8]) -> Verdict {
    let Some(advice) = Advice::of_line(line) else {
        return Verdict::unhealthy("no word of the agent is known");
    };
    let is_healthy = matches!(advice.health, None | Some(AgentHealth::Up));
    let reason = format!("the agent says {}", advice.health.map_or("nothing of health", AgentHealth::word));
    Verdict { is_healthy, reason, advice: Some(advice) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(line: &str) -> Advice {
        verdict(line.as_bytes()).advice.expect("a known word")
    }

    #[test]
    fn one_word_each() {
        let none = Advice::default();
        for (line, expected, is_healthy) in [
            ("75%", Advice { weight_percent: Some(75), ..none }, true),
            ("0%", Advice { weight_percent: Some(0), ..none }, true),
            ("maxconn:30", Advice { max_connections: Some(30), ..none }, true),
            ("ready", Advice { admin: Some(AgentAdmin::Ready), ..none }, true),
            ("drain", Advice { admin: Some(AgentAdmin::Drain), ..none }, true),
            ("maint", Advice { admin: Some(AgentAdmin::Maint), ..none }, true),
            ("UP", Advice { health: Some(AgentHealth::Up), ..none }, true),
            ("down", Advice { health: Some(AgentHealth::Down), ..none }, false),
            ("failed", Advice { health: Some(AgentHealth::Failed), ..none }, false),
            ("stopped", Advice { health: Some(AgentHealth::Stopped), ..none }, false),
        ] {
            assert_eq!(advice(line), expected, "{line}");
            assert_eq!(verdict(line.as_bytes()).is_healthy, is_healthy, "{line}");
        }
    }

    #[test]
    fn many_words_as_in_haproxys_own_test() {
        let expected = Advice {
            weight_percent: Some(75),
            admin: Some(AgentAdmin::Maint),
            health: Some(AgentHealth::Down),
            max_connections: Some(30),
        };
        assert_eq!(advice("75%,maxconn:30,maint,down"), expected);
        assert_eq!(advice("  down\tmaint maxconn:30 ,75% # up 20% of the disk is free"), expected);
        assert_eq!(advice("50% 75% up down ready maint maxconn:30"), expected);
    }

    #[test]
    fn what_is_not_understood_changes_nothing() {
        assert_eq!(
            advice("up sideways 1001% -5% +5% % maxconn: maxconn:x 99999999999%").weight_percent,
            None
        );
        for line in ["", "#up", "sideways", "75", "75 %", "\u{e9}"] {
            let verdict = verdict(line.as_bytes());
            assert!(!verdict.is_healthy && verdict.advice.is_none(), "{line}");
        }
    }
}
