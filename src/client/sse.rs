//! Server-sent events (HTML Living Standard, 9.2.6), as far as this service uses them.

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its id, where it has one of its own.
    pub id: Option<String>,
    /// Its type; empty without one.
    pub event: String,
    /// Its lines.
    pub data: String,
}

/// Puts messages together from bytes as they come.
#[derive(Debug, Default)]
pub struct Parser {
    bytes: Vec<u8>,
    message: Message,
}

impl Parser {
    /// Takes bytes; gives the messages that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.bytes.extend_from_slice(bytes);
        let mut messages = Vec::new();
        let mut from = 0;
        while let Some(length) = self.bytes[from..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.bytes[from..from + length]).into_owned();
            from += length + 1;
            messages.extend(self.line(line.trim_end_matches('\r')));
        }
        self.bytes.drain(..from);
        messages
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return Some(message).filter(|message| !message.data.is_empty());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.message.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.message.event),
            "data" => {
                if !self.message.data.is_empty() {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            // Comments, which keep the connection alive, have an empty name.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_same_however_the_bytes_are_cut() {
        let text = ": hello\n\nid: 7\nevent: log\ndata: {\"a\":\ndata: \"ä\"}\n\nevent:progress\r\ndata:1\r\n\r\nid: 8\ndata: x";
        let whole = Parser::default().push(text.as_bytes());
        let message = |id: Option<&str>, event: &str, data: &str| Message {
            id: id.map(str::to_owned),
            event: event.into(),
            data: data.into(),
        };
        assert_eq!(whole, [message(Some("7"), "log", "{\"a\":\n\"ä\"}"), message(None, "progress", "1")]);
        let mut parser = Parser::default();
        let cut: Vec<Message> = text.as_bytes().iter().flat_map(|byte| parser.push(&[*byte])).collect();
        assert_eq!(cut, whole);
    }
}
