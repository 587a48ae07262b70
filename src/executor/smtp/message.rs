//! From an effect to a mail. What comes from data reaches headers only through lettre's parsers and encoders, and never
//! with a line break in it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::Message;
use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, Mailboxes, MessageBuilder, MultiPart, SinglePart};
use serde::Deserialize;
use serde_json::Value;

use crate::executor::template::{self, Escape};
use crate::executor::{Effect, Failure};

/// The effect as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mail {
    pub(super) connection: String,
    from: Option<String>,
    #[serde(default)]
    to: Addresses,
    #[serde(default)]
    cc: Addresses,
    #[serde(default)]
    bcc: Addresses,
    #[serde(default)]
    reply_to: Addresses,
    subject: Option<String>,
    text: Option<String>,
    html: Option<String>,
    #[serde(default)]
    template: Template,
    data: Option<Value>,
    #[serde(default)]
    attachments: Vec<File>,
    message_id: Option<String>,
}

/// One text or several, each an address or some separated by commas.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

impl Default for Addresses {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    subject: Option<String>,
    text: Option<String>,
    html: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    content_type: String,
    base64: Option<String>,
    /// Text, made of the mail's data.
    template: Option<String>,
}

impl Mail {
    pub(super) fn read(effect: &Effect) -> Result<Self, Failure> {
        Self::deserialize(&effect.spec).map_err(|error| Failure::reject(format!("effect of smtp: {error}")))
    }

    /// The mail and its Message-ID, or why there is none.
    pub(super) fn message(
        &self,
        effect: &Effect,
        sender: Option<&Mailbox>,
    ) -> Result<(Message, String), String> {
        let from = match &self.from {
            Some(from) => {
                one_line("from", from)?.parse().map_err(|_| format!("from: {from} is no address"))?
            }
            None => sender.cloned().ok_or("neither the effect nor its connection has a from")?,
        };
        let domain = from.email.domain().to_owned();
        let message_id = match &self.message_id {
            Some(id) => checked_id(id)?.to_owned(),
            None => format!("<{}@{domain}>", effect.idempotency_key()),
        };
        let data = self.data.as_ref().unwrap_or(&effect.task.payload);
        let part = |name, plain: &Option<String>, source: &Option<String>, escape| match (plain, source) {
            (Some(_), Some(_)) => Err(format!("{name} stands beside template.{name}")),
            (Some(plain), None) => Ok(Some(plain.clone())),
            (None, Some(source)) => template::render(name, source, data, escape).map(Some),
            (None, None) => Ok(None),
        };
        let subject = part("subject", &self.subject, &self.template.subject, Escape::Nothing)?
            .ok_or("the mail has no subject")?;
        let text = part("text", &self.text, &self.template.text, Escape::Nothing)?;
        let html = part("html", &self.html, &self.template.html, Escape::Html)?;

        let builder = Message::builder()
            .from(from)
            .subject(one_line("subject", subject.trim_end())?)
            .message_id(Some(message_id.clone()));
        let builder = add("to", &self.to, builder, MessageBuilder::to)?;
        let builder = add("cc", &self.cc, builder, MessageBuilder::cc)?;
        let builder = add("bcc", &self.bcc, builder, MessageBuilder::bcc)?;
        let builder = add("reply_to", &self.reply_to, builder, MessageBuilder::reply_to)?;
        let message = self.body(builder, text, html, data)?;
        Ok((message, message_id))
    }

    fn body(
        &self,
        builder: MessageBuilder,
        text: Option<String>,
        html: Option<String>,
        data: &Value,
    ) -> Result<Message, String> {
        enum Body {
            Single(SinglePart),
            Both(MultiPart),
        }
        let body = match (text, html) {
            (Some(text), Some(html)) => Body::Both(MultiPart::alternative_plain_html(text, html)),
            (Some(text), None) => Body::Single(SinglePart::plain(text)),
            (None, Some(html)) => Body::Single(SinglePart::html(html)),
            (None, None) => return Err("the mail has neither text nor html".into()),
        };
        let message = if self.attachments.is_empty() {
            match body {
                Body::Single(part) => builder.singlepart(part),
                Body::Both(parts) => builder.multipart(parts),
            }
        } else {
            let mut mixed = match body {
                Body::Single(part) => MultiPart::mixed().singlepart(part),
                Body::Both(parts) => MultiPart::mixed().multipart(parts),
            };
            for file in &self.attachments {
                mixed = mixed.singlepart(file.part(data)?);
            }
            builder.multipart(mixed)
        };
        message.map_err(|error| format!("this makes no mail: {error}"))
    }
}

impl File {
    fn part(&self, data: &Value) -> Result<SinglePart, String> {
        let name = one_line("attachment", &self.name)?;
        let content_type = ContentType::parse(one_line("attachment", &self.content_type)?)
            .map_err(|_| format!("attachment {name}: {} is no content type", self.content_type))?;
        let bytes = match (&self.base64, &self.template) {
            (Some(base64), None) => {
                // Postgres breaks the lines of base64.
                let packed: String = base64.split_ascii_whitespace().collect();
                STANDARD.decode(packed).map_err(|error| format!("attachment {name}: {error}"))?
            }
            (None, Some(source)) => template::render(name, source, data, Escape::Nothing)?.into_bytes(),
            _ => return Err(format!("attachment {name} has to have base64 or a template")),
        };
        Ok(Attachment::new(name.to_owned()).body(bytes, content_type))
    }
}

fn add(
    header: &str,
    addresses: &Addresses,
    builder: MessageBuilder,
    with: fn(MessageBuilder, Mailbox) -> MessageBuilder,
) -> Result<MessageBuilder, String> {
    let texts = match addresses {
        Addresses::One(text) => std::slice::from_ref(text),
        Addresses::Several(texts) => texts,
    };
    texts.iter().filter(|text| !text.trim().is_empty()).try_fold(builder, |builder, text| {
        let known: Mailboxes = one_line(header, text)?
            .parse()
            .map_err(|_| format!("{header}: {text} is no address, nor several separated by commas"))?;
        Ok(known.into_iter().fold(builder, with))
    })
}

/// A text that is to stand in a header.
fn one_line<'t>(what: &str, text: &'t str) -> Result<&'t str, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("{what} has a line break or another control character in it"));
    }
    Ok(text)
}

fn checked_id(id: &str) -> Result<&str, String> {
    let inner =
        id.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).and_then(|rest| rest.split_once('@'));
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && !"<>@()[]\\,;:\"".contains(c))
    };
    if id.len() <= 250 && inner.is_some_and(|(left, right)| plain(left) && plain(right)) {
        return Ok(id);
    }
    Err("message_id is not of the form <left@right>".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mail(spec: Value) -> Result<String, String> {
        let mut whole = json!({ "connection": "x", "from": "Shop <shop@a.example>", "to": "b@b.example", "subject": "s", "text": "t" });
        if let Value::Object(more) = spec {
            whole.as_object_mut().unwrap().extend(more);
        }
        whole.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let effect = Effect::for_test(whole, json!({ "name": "Zoë <b>" }));
        let mail = Mail::read(&effect).map_err(|failure| format!("{failure:?}"))?;
        let (message, _) = mail.message(&effect, None)?;
        Ok(String::from_utf8(message.formatted()).unwrap())
    }

    #[test]
    fn the_message_id_is_the_same_at_every_attempt() {
        let text = mail(json!({})).unwrap();
        assert!(text.contains("\r\nMessage-ID: <rowbeat-7-3@a.example>\r\n"), "{text}");
        assert!(text.contains("\r\nDate: "), "{text}");
        let own = mail(json!({ "message_id": "<invoice-4@a.example>" })).unwrap();
        assert!(own.contains("Message-ID: <invoice-4@a.example>\r\n"), "{own}");
    }

    #[test]
    fn nothing_gets_into_a_header_that_does_not_belong_there() {
        for spec in [
            json!({ "subject": "x\r\nBcc: evil@c.example" }),
            json!({ "subject": "x\nBcc: evil@c.example" }),
            json!({ "subject": null, "template": { "subject": "{{ name }}\n{{ name }}" } }),
            json!({ "to": "b@b.example\r\nBcc: evil@c.example" }),
            json!({ "to": "B\r\n x <b@b.example>" }),
            json!({ "from": "a@a.example\nX: y" }),
            json!({ "message_id": "<a@b>\r\nX: y" }),
            json!({ "message_id": "a@b" }),
            json!({ "attachments": [{ "name": "a\r\nX: y", "content_type": "text/plain", "base64": "" }] }),
            json!({ "attachments": [{ "name": "a", "content_type": "text/plain\r\nX: y", "base64": "" }] }),
        ] {
            let refused = mail(spec.clone());
            assert!(refused.is_err(), "{spec}: {refused:?}");
        }
        let quoted = mail(json!({ "to": "\"Bcc: evil@c.example\" <b@b.example>" })).unwrap();
        assert!(!quoted.contains("\r\nBcc"), "{quoted}");
    }

    #[test]
    fn templates_fill_subject_text_and_html_from_data_or_payload() {
        let parts = json!({ "subject": "Hi {{ name }}\n", "text": "{{ name }}", "html": "<p>{{ name }}" });
        let text = mail(json!({ "subject": null, "text": null, "template": parts })).unwrap();
        assert!(text.contains("multipart/alternative"), "{text}");
        assert!(text.contains("Zo=C3=AB &lt;b&gt;") && text.contains("Zo=C3=AB <b>"), "{text}");
        let both = mail(json!({ "template": { "text": "x" } })).unwrap_err();
        assert_eq!(both, "text stands beside template.text");
        let data =
            mail(json!({ "text": null, "template": { "text": "{{ x }}" }, "data": { "x": 5 } })).unwrap();
        assert!(data.ends_with("\r\n\r\n5\r\n"), "{data}");
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        for (spec, problem) in [
            (json!({ "subject": null }), "no subject"),
            (json!({ "text": null }), "neither text nor html"),
            (json!({ "from": null }), "has a from"),
            (json!({ "to": [] }), "makes no mail"),
            (json!({ "cc": "nobody" }), "cc: nobody"),
            (json!({ "attachments": [{ "name": "a", "content_type": "x", "base64": "" }] }), "content type"),
            (
                json!({ "attachments": [{ "name": "a", "content_type": "text/plain", "base64": "é" }] }),
                "attachment a",
            ),
            (json!({ "body": "x" }), "body"),
        ] {
            let shown = mail(spec).unwrap_err();
            assert!(shown.contains(problem), "{shown}");
        }
    }

    #[test]
    fn several_recipients_and_files_go_into_one_mail() {
        let text = mail(json!({
            "to": ["a@b.example, \"C, D\" <c@b.example>", ""], "cc": "e@b.example", "bcc": "secret@b.example",
            "attachments": [{ "name": "Größe 1.txt", "content_type": "text/plain", "base64": "aGVs\nbG8=" }]
        }))
        .unwrap();
        assert!(text.contains("multipart/mixed") && !text.contains("secret@"), "{text}");
        assert!(text.contains("hello"), "{text}");
    }

    #[test]
    fn an_attachment_can_be_a_template() {
        let file = |more: Value| {
            let mut file = json!({ "name": "i.txt", "content_type": "text/plain; charset=utf-8" });
            file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            mail(json!({ "attachments": [file] }))
        };
        let text = file(json!({ "template": "Dear {{ name | upper | replace('Ë', 'E') }}" })).unwrap();
        assert!(text.contains("Dear ZOE <B>"), "{text}");
        for wrong in [json!({}), json!({ "base64": "aGVs", "template": "x" })] {
            assert_eq!(file(wrong).unwrap_err(), "attachment i.txt has to have base64 or a template");
        }
        assert!(file(json!({ "template": "{{ x }}" })).unwrap_err().starts_with("template i.txt, line 1"));
    }
}
