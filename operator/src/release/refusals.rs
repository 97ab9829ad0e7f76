//! Pods whose gate removal the API server refused or did not answer: what it said, and until when they are left alone.
use crate::pause::Pause;
use fairlead_fairshare::protocol::Uid;
use fairlead_runtime::ApiError;
use std::collections::BTreeMap;

/// Longest pause.
const PAUSE_MAX_MS: u64 = 30_000;
/// Longest text of the server that is repeated on a pod.
const WORDS_BYTES_MAX: usize = 512;

/// What the server said about a write that it did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// HTTP status; `None` when no answer came in time.
    pub code: Option<u16>,
    /// Its message.
    pub text: String,
}

impl Words {
    /// The words of an answer that is about this pod: not those of a pod that changed or is gone, and none when the
    /// server is too busy or could not be reached at all.
    #[must_use]
    pub fn of(error: &ApiError) -> Option<Self> {
        if error.throttled_ms().is_some() {
            return None;
        }
        let text = match (error, error.status()) {
            (_, Some(status)) if matches!(status.code, 404 | 409) => return None,
            (_, Some(status)) => &status.message,
            (ApiError::TimedOut { limit_ms, .. }, _) => &format!("no answer within {limit_ms} ms"),
            (ApiError::Failed { .. }, None) => return None,
        };
        let end = text.floor_char_boundary(WORDS_BYTES_MAX);
        Some(Self { code: error.code(), text: text[..end].to_owned() })
    }
}

#[derive(Debug)]
struct Refused {
    words: Words,
    pause: Pause,
}

/// The pods that were refused and are still behind the gate.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<Uid, Refused>);

impl Refusals {
    /// A gate removal failed. The first words of a kind are kept: ports and times in them change with every try.
    pub fn note(&mut self, uid: &Uid, words: Words, now_ms: u64) {
        let last = self.0.remove(uid);
        let pause = Pause::after(last.as_ref().map(|last| last.pause), now_ms, PAUSE_MAX_MS);
        let words = last.map(|last| last.words).filter(|said| said.code == words.code).unwrap_or(words);
        self.0.insert(uid.clone(), Refused { words, pause });
    }

    /// The pod is to be left alone.
    #[must_use]
    pub fn rests(&self, uid: &str, now_ms: u64) -> bool {
        self.0.get(uid).is_some_and(|refused| refused.pause.lasts(now_ms))
    }

    /// The pods with the server's words.
    pub fn iter(&self) -> impl Iterator<Item = (&Uid, &str)> {
        self.0.iter().map(|(uid, refused)| (uid, refused.words.text.as_str()))
    }

    /// The pod is out, or gone.
    pub fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(code: u16, text: &str) -> Words {
        Words { code: Some(code), text: text.into() }
    }

    #[test]
    fn pauses_grow_and_end() {
        let (mut refusals, uid) = (Refusals::default(), Uid::from("u"));
        let mut now_ms = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            refusals.note(&uid, words(500, "m"), now_ms);
            assert!(refusals.rests("u", now_ms + pause_ms - 1) && !refusals.rests("u", now_ms + pause_ms));
            now_ms += pause_ms;
        }
        refusals.forget("u");
        refusals.note(&uid, words(500, "m"), now_ms);
        assert!(!refusals.rests("u", now_ms + 1_000), "starts again");
    }

    #[test]
    fn the_words_stay_while_the_fact_does() {
        let (mut refusals, uid) = (Refusals::default(), Uid::from("u"));
        refusals.note(&uid, words(500, "port 1"), 0);
        refusals.note(&uid, words(500, "port 2"), 0);
        assert_eq!(refusals.iter().map(|(_, text)| text).collect::<Vec<_>>(), ["port 1"]);
        refusals.note(&uid, words(403, "no"), 0);
        assert_eq!(refusals.iter().map(|(_, text)| text).collect::<Vec<_>>(), ["no"]);
    }

    #[test]
    fn only_what_is_about_the_pod_counts() {
        let answer = |code: u16| {
            let mut status = kube::core::Status::failure("denied", "R");
            status.code = code;
            ApiError::Failed { operation: "patch Pod", source: Box::new(kube::Error::Api(Box::new(status))) }
        };
        assert_eq!(Words::of(&answer(403)), Some(words(403, "denied")));
        assert_eq!([409, 404, 429].map(|code| Words::of(&answer(code))), [None, None, None]);
        let hung = Words::of(&ApiError::TimedOut { operation: "patch Pod", limit_ms: 5_000 }).unwrap();
        assert_eq!((hung.code, hung.text.as_str()), (None, "no answer within 5000 ms"));
        let away = kube::Error::Service(Box::new(std::io::Error::other("refused")));
        assert_eq!(Words::of(&ApiError::Failed { operation: "patch Pod", source: Box::new(away) }), None);
    }
}
