//! From the wire to what the engine takes, and back.

use crate::error::{Problem, one_line, shortened};
use crate::limits::Limits;
use crate::picture::data_uri;
use crate::wire::{self, ChatRequest, Cost, Object};
use lare_infer::chat::{Content, Message, Part, Role};
use lare_infer::engine::{About, Answered, Refusal, Replacement};
use lare_infer::{Finish, Grid, LookReport, Options, Picture, Sampling, Steps, Word};
use serde_json::error::Category;
use std::time::Duration;

/// Texts that may end an answer.
const MOST_STOPS: usize = 4;
/// Bytes of such a text.
const MOST_STOP_BYTES: usize = 256;
/// Unknown fields that are named in the log.
const MOST_UNKNOWN: usize = 20;

/// A request, understood; its pictures are still where their URLs say.
#[derive(Debug)]
pub struct Asked {
    /// The conversation.
    pub messages: Vec<Message>,
    /// Field and URL of each picture, in order.
    pub pictures: Vec<(String, String)>,
    /// How it is answered.
    pub options: Options,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// What takes the place of thoughts or looks.
    pub replace: Option<Replacement>,
    /// What comes back.
    pub wanted: Wanted,
}

/// What a client wants back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The answer as it is said.
    pub stream: bool,
    /// In a stream, the usage in a chunk of its own.
    pub usage_chunk: bool,
    /// The looks.
    pub looks: bool,
    /// Their drawings.
    pub drawings: bool,
}

/// Reads a body. Gives the request and the names of fields that are not known.
///
/// # Errors
/// 400: no JSON, or a field of the wrong type, by its path.
pub fn read(body: &[u8]) -> Result<(ChatRequest, Vec<String>), Problem> {
    let mut unknown = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut note = |path: serde_ignored::Path| {
        if unknown.len() < MOST_UNKNOWN {
            unknown.push(shortened(&path.to_string()));
        }
    };
    let read = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(&mut json, &mut note));
    let request: Object<ChatRequest> = read.map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        match error.classify() {
            Category::Data if path != "." => Problem::field(path.clone(), format!("`{path}`: {error}")),
            Category::Data => Problem::body(format!("expected a JSON object: {error}")),
            _ => Problem::body(format!("the body is not JSON: {error}")),
        }
    })?;
    json.end().map_err(|error| Problem::body(format!("the body is not JSON: {error}")))?;
    Ok((request.0, unknown))
}

/// Understands a request to a model that is served under a name.
///
/// # Errors
/// What cannot be, by its field.
pub fn understand(request: ChatRequest, name: &str, about: &About, limits: &Limits) -> Result<Asked, Problem> {
    if let Some(got) = request.model.as_deref().filter(|got| *got != name) {
        return Err(Problem::model(got, name));
    }
    if let Some(n) = request.n.filter(|n| *n != 1) {
        return Err(Problem::field("n", format!("`n` is 1: one answer a request; got {n}")));
    }
    let Object(extensions) = request.lare.unwrap_or_default();
    let options = Options {
        steps: steps(&extensions, limits)?,
        sampling: Sampling {
            temperature: request.temperature.unwrap_or(0.0),
            // 0 means the likeliest word alone, as elsewhere; the sampler wants a share above 0.
            top_p: request.top_p.map_or(1.0, |share| if share == 0.0 { f32::MIN_POSITIVE } else { share }),
            seed: request.seed.unwrap_or(0).cast_unsigned(),
        },
        max_tokens: most_tokens([request.max_tokens, request.max_completion_tokens], about, limits)?,
        // Only looks tell them, and finding them takes as long as saying a token.
        nearest_words: if extensions.trace == Some(true) { Options::default().nearest_words } else { 0 },
    };
    let seed = options.sampling.seed;
    let replace = extensions.intervention.map(|intervention| match intervention {
        wire::Intervention::Zero => Replacement::Zero,
        wire::Intervention::Noise => Replacement::Noise { seed },
        wire::Intervention::RepeatFirst => Replacement::RepeatFirst,
        wire::Intervention::MarkersOnly => Replacement::MarkersOnly,
        wire::Intervention::RandomPatches => Replacement::RandomPatches { seed },
    });
    let stream = request.stream.unwrap_or(false);
    let usage_chunk = request.stream_options.and_then(|Object(options)| options.include_usage).unwrap_or(false);
    let wanted = Wanted {
        stream,
        usage_chunk,
        looks: extensions.trace.unwrap_or(false),
        drawings: extensions.drawings.unwrap_or(false),
    };
    check_wanted(wanted, replace, about)?;
    let (messages, pictures) = conversation(request.messages)?;
    if pictures.len() > limits.pictures.min(about.pictures) {
        let most = limits.pictures.min(about.pictures);
        let message = format!("at most {most} pictures in all messages, got {}", pictures.len());
        return Err(Problem::field("messages", message));
    }
    Ok(Asked { messages, pictures, options, stop: stops(request.stop)?, replace, wanted })
}

fn check_wanted(wanted: Wanted, replace: Option<Replacement>, about: &About) -> Result<(), Problem> {
    if wanted.drawings && !wanted.looks {
        return Err(Problem::field("lare.drawings", "drawings are a part of looks: set `lare.trace` too"));
    }
    if wanted.drawings && !about.can_draw {
        return Err(Problem::field("lare.drawings", "this model does not draw its thoughts"));
    }
    if wanted.looks && about.max_steps == 0 {
        return Err(Problem::field("lare.trace", "this model takes no latent steps: there are no looks to tell of"));
    }
    if replace.is_some() && about.max_steps == 0 {
        return Err(Problem::field("lare.intervention", "this model takes no latent steps: nothing can be replaced"));
    }
    Ok(())
}

fn steps(extensions: &wire::Extensions, limits: &Limits) -> Result<Steps, Problem> {
    match (extensions.steps, extensions.halt_threshold) {
        (Some(wire::Steps::Count(_)), Some(_)) => {
            let message = "a threshold ends steps that are \"auto\": leave it out, or set `lare.steps` to \"auto\"";
            Err(Problem::field("lare.halt_threshold", message))
        }
        (Some(wire::Steps::Count(count)), None) if count > limits.steps as u64 => {
            Err(Problem::field("lare.steps", format!("at most {} steps, got {count}", limits.steps)))
        }
        (Some(wire::Steps::Count(count)), None) => Ok(Steps::Fixed(usize::try_from(count).unwrap_or(usize::MAX))),
        (Some(wire::Steps::Auto) | None, threshold) => Ok(match threshold {
            Some(threshold) => Steps::Auto { threshold },
            None => Options::default().steps,
        }),
    }
}

/// Most tokens by their old name and their new one, which wins; more than there may be is cut, never refused.
fn most_tokens([old, new]: [Option<u64>; 2], about: &About, limits: &Limits) -> Result<usize, Problem> {
    let (field, given) = if new.is_some() { ("max_completion_tokens", new) } else { ("max_tokens", old) };
    match given {
        Some(0) => Err(Problem::field(field, format!("`{field}` is at least 1, got 0"))),
        Some(given) => Ok(usize::try_from(given).unwrap_or(usize::MAX).min(limits.tokens)),
        None => Ok(about.answer_tokens.map_or(limits.tokens, |tokens| tokens.clamp(1, limits.tokens))),
    }
}

fn stops(stop: Option<wire::Stop>) -> Result<Vec<String>, Problem> {
    let texts = stop.unwrap_or_default().0;
    if texts.len() > MOST_STOPS {
        return Err(Problem::field("stop", format!("at most {MOST_STOPS} texts, got {}", texts.len())));
    }
    if texts.iter().any(|text| text.is_empty() || text.len() > MOST_STOP_BYTES) {
        return Err(Problem::field("stop", format!("a text of 1 to {MOST_STOP_BYTES} bytes is expected")));
    }
    Ok(texts)
}

/// Messages for the engine, and its pictures by field and URL.
type Conversation = (Vec<Message>, Vec<(String, String)>);

fn conversation(messages: Option<Vec<Object<wire::Message>>>) -> Result<Conversation, Problem> {
    let Some(messages) = messages.filter(|messages| !messages.is_empty()) else {
        return Err(Problem::field("messages", "`messages` needs at least one message"));
    };
    let mut pictures = Vec::new();
    let messages = messages.into_iter().enumerate().map(|(at, Object(message))| {
        let place = format!("messages[{at}]");
        let role = role(&message.role).ok_or_else(|| {
            let got = shortened(&message.role);
            let message = format!("expected `system`, `developer`, `user` or `assistant`, got `{got}`");
            Problem::field(format!("{place}.role"), message)
        })?;
        let content = match message.content {
            Some(wire::Content::Text(text)) => Content::Text(text),
            Some(wire::Content::Parts(parts)) => Content::Parts(read_parts(parts, &place, &mut pictures)?),
            // What an assistant said before may have been a call of a tool, which has no words.
            None if role == Role::Assistant => Content::Text(String::new()),
            None => return Err(Problem::field(format!("{place}.content"), "a message needs content")),
        };
        Ok(Message { role, content })
    });
    let messages = messages.collect::<Result<_, Problem>>()?;
    Ok((messages, pictures))
}

fn role(name: &str) -> Option<Role> {
    match name {
        "system" | "developer" => Some(Role::System),
        "user" => Some(Role::User),
        "assistant" => Some(Role::Assistant),
        _ => None,
    }
}

fn read_parts(
    parts: Vec<Object<wire::Part>>,
    message: &str,
    pictures: &mut Vec<(String, String)>,
) -> Result<Vec<Part>, Problem> {
    let parts = parts.into_iter().enumerate().map(|(at, Object(part))| {
        let place = format!("{message}.content[{at}]");
        match (part.kind.as_str(), part.text, part.image_url) {
            ("text", Some(text), _) => Ok(Part::Text(text)),
            ("text", None, _) => Err(Problem::field(format!("{place}.text"), "a part of type `text` needs `text`")),
            ("image_url", _, Some(image)) => {
                pictures.push((format!("{place}.image_url.url"), image.url));
                Ok(Part::Picture)
            }
            ("image_url", _, None) => {
                let message = "a part of type `image_url` needs `image_url`";
                Err(Problem::field(format!("{place}.image_url"), message))
            }
            (other, ..) => {
                let message = format!("expected `text` or `image_url`, got `{}`", shortened(other));
                Err(Problem::field(format!("{place}.type"), message))
            }
        }
    });
    parts.collect()
}

/// What the engine does not take, as the wire says it.
pub fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Full { waiting } => Problem::full(format!("{waiting} requests are waiting; try again later")),
        Refusal::Closing => Problem::closing(),
        Refusal::Bad { field, reason } => {
            let param = match field {
                "steps" => "lare.steps",
                "halt-threshold" | "halt_threshold" => "lare.halt_threshold",
                "replace" => "lare.intervention",
                "draw" => "lare.drawings",
                "top-p" => "top_p",
                "max-tokens" => "max_tokens",
                "pictures" => "messages",
                other => other,
            };
            Problem::field(param, one_line(&reason))
        }
    }
}

/// Milliseconds to the microsecond.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// What an answer cost.
#[must_use]
pub fn usage(answered: &Answered) -> wire::Usage {
    let counts = &answered.usage;
    let completion_tokens = counts.text_tokens + counts.latent_steps;
    wire::Usage {
        prompt_tokens: answered.prompt_tokens,
        completion_tokens,
        total_tokens: answered.prompt_tokens + completion_tokens,
        completion_tokens_details: wire::CompletionDetails { reasoning_tokens: counts.latent_steps },
        lare: Cost {
            latent_steps: counts.latent_steps,
            refocused_visual_tokens: counts.refocused_visual_tokens,
            appended_visual_tokens: counts.appended_visual_tokens,
            processed_positions: counts.processed_positions,
            queued_ms: ms(answered.queued),
            first_token_ms: ms(answered.first_token),
            total_ms: ms(answered.total),
        },
    }
}

/// Why an answer ended, in OpenAI's words.
#[must_use]
pub fn finish_reason(answered: &Answered) -> &'static str {
    match answered.finish {
        _ if answered.stopped => "stop",
        Finish::End => "stop",
        Finish::Length | Finish::Context => "length",
    }
}

/// One look, numbered from 1.
#[must_use]
pub fn look(step: usize, look: &LookReport, grids: &[Grid], drawing: Option<&Picture>) -> wire::Look {
    let words = |words: &[Word]| words.iter().map(|w| wire::Word { text: w.text.clone(), score: w.score }).collect();
    let grids: Vec<wire::Grid> = grids.iter().map(grid).collect();
    wire::Look {
        step,
        grid: grids.first().copied().unwrap_or(wire::Grid { rows: 0, cols: 0, cell_px_x: 0.0, cell_px_y: 0.0 }),
        grids: if grids.len() > 1 { grids } else { Vec::new() },
        scores: look.scores.clone(),
        chosen: look.chosen.clone(),
        nearest: words(&look.nearest),
        named: words(&look.named),
        gate_mean: look.gate_mean,
        halt_probability: look.halt_probability,
        time_ms: look.time_ms,
        drawing: drawing.and_then(data_uri),
    }
}

fn grid(grid: &Grid) -> wire::Grid {
    wire::Grid { rows: grid.rows, cols: grid.cols, cell_px_x: grid.cell_px_x, cell_px_y: grid.cell_px_y }
}

#[cfg(test)]
#[path = "convert/tests.rs"]
mod tests;
