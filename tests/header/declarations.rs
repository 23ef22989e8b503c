//! Reads declarations back out of the header, for checking them. It knows the form in which cbindgen
//! writes them, no C beyond that.

/// An exported function as the header declares it.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub returns_void: bool,
    pub parameters: Vec<String>,
    /// Its comment's lines, without the stars.
    pub comment: Vec<String>,
}

impl Function {
    /// The parameters that the comment describes, in its order.
    pub fn described(&self) -> Vec<&str> {
        let lines = self.comment.iter().filter(|line| line.starts_with("@param"));
        lines.filter_map(|line| line.split_whitespace().nth(1)).collect()
    }

    pub fn has_line(&self, beginning: &str) -> bool {
        self.comment.iter().any(|line| line.starts_with(beginning))
    }
}

/// All functions, in the header's order.
pub fn functions(header: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut comment = Vec::new();
    let mut declaration = String::new();
    let mut in_comment = false;
    for line in header.lines() {
        if line.starts_with("/*") {
            comment.clear();
            declaration.clear();
            in_comment = true;
        }
        if in_comment {
            in_comment = !line.ends_with("*/");
            comment.push(line.trim().trim_start_matches('*').trim().to_owned());
            continue;
        }
        if line.starts_with('#') || line.is_empty() {
            declaration.clear();
            continue;
        }
        declaration.push_str(line.trim());
        declaration.push(' ');
        if line.ends_with(';') {
            found.extend(function(&declaration, &comment));
            declaration.clear();
            comment.clear();
        }
    }
    found
}

fn function(declaration: &str, comment: &[String]) -> Option<Function> {
    if declaration.starts_with("typedef") {
        return None;
    }
    let (before, after) = declaration.split_once('(')?;
    let name = last_word(before);
    let list = after.trim_end().strip_suffix(");")?.trim();
    let parameters =
        if list == "void" { Vec::new() } else { list.split(',').map(last_word).collect() };
    let returns_void = before.trim_end_matches(name.as_str()).trim() == "void";
    Some(Function { name, returns_void, parameters, comment: comment.to_vec() })
}

/// The identifier at the end.
fn last_word(text: &str) -> String {
    let text = text.trim();
    let start = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    text[start..].to_owned()
}

/// The value of a macro.
pub fn definition<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.lines().find_map(|line| {
        let (found, value) = line.strip_prefix("#define ")?.split_once(' ')?;
        (found == name).then(|| value.trim())
    })
}
