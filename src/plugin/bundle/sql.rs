//! What a plugin's SQL files may not say: whatever would end the installer's transaction or change who runs it.
//!
//! The text is read as the server reads it (strings, quoted names, dollar quotes, nested comments, function bodies between `begin
//! atomic` and `end`), so that words within a function do not count and hidden ones do. Inside of functions and `do` blocks the
//! server itself refuses to end a transaction that somebody else began.

/// The statements of a file that are not allowed: their line, and the words.
pub fn forbidden(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut statement: Vec<String> = Vec::new();
    let mut begun = 1;
    // Depth of `case` and `begin atomic` that an `end` will close.
    let (mut open, mut brackets) = (0_usize, 0_usize);
    let mut lexer = Lexer { text: text.as_bytes(), at: 0, line: 1, escapes: false };
    while let Some(token) = lexer.next() {
        match token {
            Token::Backslash => found.push((lexer.line, "\\".to_owned())),
            Token::Semicolon if open == 0 => {
                found.extend(judge(&statement).map(|words| (begun, words)));
                statement.clear();
                brackets = 0;
            }
            Token::Word(word) => {
                if statement.is_empty() {
                    begun = lexer.line;
                }
                // A column may be called begin and its type atomic: a body stands outside of brackets.
                let creates = brackets == 0 && statement.first().is_some_and(|first| first == "create");
                match word.as_str() {
                    "atomic" if creates && statement.last().is_some_and(|last| last == "begin") => open += 1,
                    "case" if open > 0 => open += 1,
                    "end" => open = open.saturating_sub(1),
                    _ => {}
                }
                statement.push(word);
            }
            Token::Other | Token::Semicolon | Token::Open | Token::Close => {
                match token {
                    Token::Open => brackets += 1,
                    Token::Close => brackets = brackets.saturating_sub(1),
                    _ => {}
                }
                if statement.is_empty() {
                    begun = lexer.line;
                }
                statement.push(String::new());
            }
        }
    }
    found.extend(judge(&statement).map(|words| (begun, words)));
    found
}

/// The words of a statement that make it a forbidden one.
fn judge(statement: &[String]) -> Option<String> {
    let word = |at: usize| statement.get(at).map_or("", String::as_str);
    let scope = usize::from(
        ["local", "session"].contains(&word(1)) && word(2) != "authorization" && word(2) != "characteristics",
    );
    let words = match word(0) {
        "begin" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" | "copy" | "load"
        | "listen" | "unlisten" | "discard" => 1,
        "start" | "prepare" if word(1) == "transaction" => 2,
        "set" if ["role", "transaction"].contains(&word(1 + scope)) => 2 + scope,
        "set" if word(1) == "session" && ["authorization", "characteristics"].contains(&word(2)) => 3,
        "reset" if ["role", "all"].contains(&word(1)) => 2,
        "reset" if word(1) == "session" => 3,
        _ => return None,
    };
    Some(statement.iter().take(words).map(String::as_str).collect::<Vec<_>>().join(" "))
}

enum Token {
    /// An unquoted word, in small letters.
    Word(String),
    Semicolon,
    Open,
    Close,
    /// Of psql; the server does not know it.
    Backslash,
    Other,
}

struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    line: usize,
    /// The last token was a string with escapes: one that follows in the next line goes on with them.
    escapes: bool,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or_default()
    }

    fn step(&mut self) -> u8 {
        let byte = self.peek(0);
        self.line += usize::from(byte == b'\n');
        self.at += 1;
        byte
    }

    fn starts_with(&self, text: &[u8]) -> bool {
        self.text.get(self.at..).is_some_and(|rest| rest.starts_with(text))
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            if self.at >= self.text.len() {
                return None;
            }
            match self.peek(0) {
                byte if byte.is_ascii_whitespace() || byte == 0x0b => _ = self.step(),
                b'-' if self.peek(1) == b'-' => {
                    while self.at < self.text.len() && !matches!(self.peek(0), b'\n' | b'\r') {
                        self.step();
                    }
                }
                b'/' if self.peek(1) == b'*' => self.comment(),
                _ => break,
            }
        }
        let escapes = std::mem::take(&mut self.escapes);
        Some(match self.peek(0) {
            b'(' => {
                self.step();
                Token::Open
            }
            b')' => {
                self.step();
                Token::Close
            }
            b';' => {
                self.step();
                Token::Semicolon
            }
            b'\\' => {
                self.step();
                Token::Backslash
            }
            b'\'' => self.quoted(b'\'', escapes),
            b'"' => self.quoted(b'"', false),
            b'$' => self.dollar(),
            byte if is_letter(byte) => self.word(),
            byte if byte.is_ascii_digit() => {
                // 1e5 and 1$$ alike: letters and dollars after a digit belong to it or are an error.
                while self.peek(0).is_ascii_digit() {
                    self.step();
                }
                Token::Other
            }
            _ => {
                self.step();
                Token::Other
            }
        })
    }

    fn comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            if self.starts_with(b"/*") {
                depth += 1;
                self.skip(2);
            } else if self.starts_with(b"*/") {
                depth -= 1;
                self.skip(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.step();
            }
        }
    }

    fn quoted(&mut self, quote: u8, escapes: bool) -> Token {
        self.step();
        while self.at < self.text.len() {
            match self.step() {
                b'\\' if escapes => _ = self.step(),
                byte if byte == quote && self.peek(0) == quote => _ = self.step(),
                byte if byte == quote => break,
                _ => {}
            }
        }
        self.escapes = escapes;
        Token::Other
    }

    fn dollar(&mut self) -> Token {
        let mut end = self.at + 1;
        while self
            .text
            .get(end)
            .is_some_and(|byte| is_letter(*byte) || byte.is_ascii_digit() && end > self.at + 1)
        {
            end += 1;
        }
        if self.text.get(end) != Some(&b'$') {
            self.step();
            return Token::Other;
        }
        let tag = self.text[self.at..=end].to_vec();
        self.skip(tag.len());
        while self.at < self.text.len() && !self.starts_with(&tag) {
            self.step();
        }
        self.skip(tag.len());
        Token::Other
    }

    fn word(&mut self) -> Token {
        let begun = self.at;
        while is_letter(self.peek(0)) || self.peek(0).is_ascii_digit() || self.peek(0) == b'$' {
            self.step();
        }
        let word = String::from_utf8_lossy(&self.text[begun..self.at]).to_ascii_lowercase();
        match (word.as_str(), self.peek(0)) {
            ("e", b'\'') => self.quoted(b'\'', true),
            ("b" | "x" | "n", b'\'') => self.quoted(b'\'', false),
            _ => Token::Word(word),
        }
    }
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::forbidden;

    fn words(text: &str) -> Vec<String> {
        forbidden(text).into_iter().map(|(line, words)| format!("{line} {words}")).collect()
    }

    #[test]
    fn statements_that_end_the_transaction_or_change_the_role_are_found() {
        for text in [
            "commit",
            "Commit;",
            "/* a /* b */ */ rollback",
            "begin",
            "start transaction",
            "end",
            "abort",
            "savepoint a",
            "release a",
            "prepare transaction 'x'",
            "set role x",
            "set local role x",
            "set session role x",
            "reset role",
            "reset all",
            "set session authorization x",
            "reset session authorization",
            "copy t from stdin",
            "discard all",
            "set transaction read only",
        ] {
            assert_eq!(forbidden(text).len(), 1, "{text}");
        }
        assert_eq!(
            words("select 1;\n\n-- then\nCOMMIT AND CHAIN;\nselect 'x'; rollback to a"),
            ["4 commit", "5 rollback"]
        );
        assert_eq!(words("select 1\n\\gexec\n"), ["2 \\"]);
    }

    #[test]
    fn hidden_statements_are_found_and_words_in_texts_are_not() {
        assert_eq!(words(r"select 'a\'; commit; --'"), ["1 commit"]);
        assert_eq!(words(r"select e'a\''; commit; --'"), ["1 commit"]);
        assert_eq!(words("select e'a'\n'b\\'' ; commit; --'"), ["2 commit"]);
        assert_eq!(words("create table t (begin atomic); commit"), ["1 commit"]);
        assert_eq!(words("select $a$ ; commit; $b$ $a$; commit"), ["1 commit"]);
        assert_eq!(words("select a$b$ ; commit; select $c$"), ["1 commit"]);
        assert_eq!(words("select 1 -- x\r commit"), [""; 0]);
        assert_eq!(words("select 1; -- x\r commit"), ["1 commit"]);
        for text in [
            "select 'commit; rollback'",
            "select \"; commit\" from t",
            "select $$; commit; $$",
            "-- ; commit\nselect 1",
            "/* ; commit; /* ; */ ; commit */ select 1",
            "create function f() returns void language plpgsql as $$ begin commit; end $$",
            "create function f() returns int begin atomic select case when true then 1 end; select 2; end; select 1",
            "prepare p as select 1",
            "set search_path = x",
            "create table t (commit int, role text)",
            "do $$ begin null; end $$",
        ] {
            assert_eq!(words(text), [""; 0], "{text}");
        }
    }
}
