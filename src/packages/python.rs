//! What can be seen of a Python file without running it: whether it is one, and what its top level defines.

use std::panic::{AssertUnwindSafe, catch_unwind};

use indexmap::IndexMap;
use ruff_python_ast::token::TokenKind;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{ExceptHandler, Expr, PythonVersion, Stmt, StmtFunctionDef};
use ruff_python_parser::lexer::lex;
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use ruff_text_size::{Ranged, TextSize};

use crate::text::plain;

/// Stack of the thread that parses. Trees are dropped and walked recursively, down to [`MAX_NESTING`].
pub(super) const STACK: usize = 64 * 1024 * 1024;
/// Deepest nesting that is parsed. CPython refuses to compile what is deeper than about 3,000 levels.
const MAX_NESTING: usize = 3_000;
/// Largest script, in bytes.
pub(super) const MAX_SCRIPT: usize = 1024 * 1024;
/// The oldest Python that images have.
const PYTHON: PythonVersion = PythonVersion::PY311;
/// Longest explanation of the parser that is shown, in characters.
const MAX_SAID: usize = 200;

/// The outcome of looking at a file.
pub(super) enum Looked {
    /// It is Python.
    Module(Module),
    /// It is not, or not to be told.
    Fault(Fault),
}

/// Why a file is not looked at any further.
pub(super) enum Fault {
    /// It is larger than [`MAX_SCRIPT`].
    TooLarge,
    /// From this line on.
    NotUtf8 { line: usize },
    /// It is nested more deeply than [`MAX_NESTING`].
    TooDeep,
    /// The first error.
    Syntax { line: usize, said: String },
    /// The parser gave up on it.
    Unknown,
}

/// What the top level of a file binds, in the order in which the names first come.
#[derive(Default)]
pub(super) struct Module {
    pub(super) names: IndexMap<String, Defined>,
    /// False when there may be more names than listed: after `from x import *`.
    pub(super) complete: bool,
    /// The first use of syntax that the oldest Python does not have.
    pub(super) newer: Option<(usize, String)>,
}

/// What binds a name.
pub(super) enum Defined {
    /// A `def` that nothing decorates.
    Function(Function),
    /// Something that may be a function: an import, an assignment, a decorated `def`.
    Perhaps,
    /// A class, which is never called.
    Class,
}

/// A function as it is declared.
pub(super) struct Function {
    pub(super) line: usize,
    /// Parameters without a default.
    pub(super) required: Vec<String>,
    pub(super) is_async: bool,
    pub(super) is_generator: bool,
}

/// Looks at a file. Call it on a thread with a stack of [`STACK`].
pub(super) fn look(bytes: &[u8]) -> Looked {
    if bytes.len() > MAX_SCRIPT {
        return Looked::Fault(Fault::TooLarge);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            return Looked::Fault(Fault::NotUtf8 { line: Lines::of(bytes).at(error.valid_up_to()) });
        }
    };
    // Somebody else's parser, and anybody's text.
    catch_unwind(AssertUnwindSafe(|| parse(text))).unwrap_or(Looked::Fault(Fault::Unknown))
}

fn parse(text: &str) -> Looked {
    if is_too_deep(text) {
        return Looked::Fault(Fault::TooDeep);
    }
    let parsed = parse_unchecked(text, ParseOptions::from(Mode::Module).with_target_version(PYTHON));
    let lines = Lines::of(text.as_bytes());
    let line = |at: TextSize| lines.at(at.to_usize());
    if let Some(error) = parsed.errors().first() {
        let said = plain(&error.error.to_string(), MAX_SAID);
        return Looked::Fault(Fault::Syntax { line: line(error.location.start()), said });
    }
    let newer = parsed.unsupported_syntax_errors().first();
    let newer = newer.map(|error| (line(error.range.start()), plain(&error.to_string(), MAX_SAID)));
    let Some(parsed) = parsed.try_into_module() else {
        return Looked::Fault(Fault::Unknown);
    };
    let mut module = Module { complete: true, newer, ..Module::default() };
    top_level(parsed.suite(), &line, &mut module);
    Looked::Module(module)
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &[u8]) -> Self {
        Self(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The 1-based line of an offset.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

/// Whether the tree of a text could be so deep that walking it would overflow the stack. The depth is estimated from above: what
/// stands between two commas may all be nested in one another, and so may all that is in open brackets and blocks.
fn is_too_deep(text: &str) -> bool {
    let mut lexer = lex(text, Mode::Module);
    let mut levels = vec![Level::default()];
    let (mut blocks, mut around) = (0_usize, 0_usize);
    loop {
        let kind = lexer.next_token();
        let Some(level) = levels.last_mut() else { return true };
        match kind {
            TokenKind::EndOfFile => return false,
            TokenKind::Indent => blocks += 1,
            TokenKind::Dedent => blocks = blocks.saturating_sub(1),
            TokenKind::Comma => level.chain = 0,
            TokenKind::Newline | TokenKind::Semi => (level.chain, level.lambdas) = (0, 0),
            // A comma between the parameters of a lambda does not end it.
            TokenKind::Lambda => level.lambdas += 1,
            TokenKind::Lpar
            | TokenKind::Lsqb
            | TokenKind::Lbrace
            | TokenKind::FStringStart
            | TokenKind::TStringStart => {
                level.chain += 1;
                around += level.depth();
                levels.push(Level { opened: kind, ..Level::default() });
            }
            TokenKind::Rpar | TokenKind::Rsqb | TokenKind::Rbrace | TokenKind::FStringEnd | TokenKind::TStringEnd => {
                if closes(kind, level.opened) {
                    levels.pop();
                    around -= levels.last().map_or(0, Level::depth);
                }
            }
            TokenKind::Name
            | TokenKind::Int
            | TokenKind::Float
            | TokenKind::Complex
            | TokenKind::String
            | TokenKind::FStringMiddle
            | TokenKind::TStringMiddle
            | TokenKind::True
            | TokenKind::False
            | TokenKind::None
            | TokenKind::Ellipsis
            | TokenKind::Comment
            | TokenKind::NonLogicalNewline => {}
            _ => level.chain += 1,
        }
        if around + blocks + levels.last().map_or(0, Level::depth) > MAX_NESTING {
            return true;
        }
    }
}

fn closes(kind: TokenKind, opened: TokenKind) -> bool {
    matches!(
        (opened, kind),
        (TokenKind::Lpar, TokenKind::Rpar)
            | (TokenKind::Lsqb, TokenKind::Rsqb)
            | (TokenKind::Lbrace, TokenKind::Rbrace)
            | (TokenKind::FStringStart, TokenKind::FStringEnd)
            | (TokenKind::TStringStart, TokenKind::TStringEnd)
    )
}

/// What may be nested in one another within one bracket.
struct Level {
    opened: TokenKind,
    /// Since the last comma.
    chain: usize,
    lambdas: usize,
}

impl Default for Level {
    fn default() -> Self {
        Self { opened: TokenKind::EndOfFile, chain: 0, lambdas: 0 }
    }
}

impl Level {
    const fn depth(&self) -> usize {
        self.chain + self.lambdas
    }
}

fn top_level(body: &[Stmt], line: &impl Fn(TextSize) -> usize, module: &mut Module) {
    for statement in body {
        let nested: Vec<&[Stmt]> = match statement {
            Stmt::FunctionDef(function) => {
                let defined = if function.decorator_list.is_empty() {
                    Defined::Function(signature(function, line(function.name.start())))
                } else {
                    // What a decorator makes of it is known once it has run.
                    Defined::Perhaps
                };
                module.names.insert(function.name.to_string(), defined);
                continue;
            }
            Stmt::ClassDef(class) => {
                module.names.insert(class.name.to_string(), Defined::Class);
                continue;
            }
            Stmt::Import(import) => {
                for alias in &import.names {
                    let name = alias.asname.as_ref().unwrap_or(&alias.name).as_str();
                    perhaps(module, name.split('.').next().unwrap_or(name));
                }
                continue;
            }
            Stmt::ImportFrom(import) => {
                for alias in &import.names {
                    match alias.asname.as_ref().unwrap_or(&alias.name).as_str() {
                        "*" => module.complete = false,
                        name => perhaps(module, name),
                    }
                }
                continue;
            }
            Stmt::Assign(assign) => {
                assign.targets.iter().for_each(|target| targets(target, module));
                continue;
            }
            Stmt::AnnAssign(assign) => {
                targets(&assign.target, module);
                continue;
            }
            Stmt::If(one) => {
                std::iter::once(&*one.body).chain(one.elif_else_clauses.iter().map(|clause| &*clause.body)).collect()
            }
            Stmt::Try(one) => std::iter::once(&*one.body)
                .chain(one.handlers.iter().map(|ExceptHandler::ExceptHandler(handler)| &*handler.body))
                .chain([&*one.orelse, &*one.finalbody])
                .collect(),
            Stmt::For(one) => vec![&*one.body, &*one.orelse],
            Stmt::While(one) => vec![&*one.body, &*one.orelse],
            Stmt::With(one) => vec![&*one.body],
            Stmt::Match(one) => one.cases.iter().map(|case| &*case.body).collect(),
            _ => continue,
        };
        nested.into_iter().for_each(|body| top_level(body, line, module));
    }
}

fn perhaps(module: &mut Module, name: &str) {
    module.names.insert(name.to_owned(), Defined::Perhaps);
}

fn targets(target: &Expr, module: &mut Module) {
    match target {
        Expr::Name(name) => perhaps(module, name.id.as_str()),
        Expr::Tuple(several) => several.elts.iter().for_each(|one| targets(one, module)),
        Expr::List(several) => several.elts.iter().for_each(|one| targets(one, module)),
        Expr::Starred(one) => targets(&one.value, module),
        _ => {}
    }
}

fn signature(function: &StmtFunctionDef, line: usize) -> Function {
    let required = function.parameters.iter_non_variadic_params().filter(|parameter| parameter.default.is_none());
    let required = required.map(|parameter| parameter.parameter.name.to_string()).collect();
    let mut yields = Yields(false);
    function.body.iter().for_each(|statement| yields.visit_stmt(statement));
    Function { line, required, is_async: function.is_async, is_generator: yields.0 }
}

/// Looks for a `yield` of the function itself.
struct Yields(bool);

impl<'a> Visitor<'a> for Yields {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        if !self.0 && !matches!(statement, Stmt::FunctionDef(_) | Stmt::ClassDef(_)) {
            walk_stmt(self, statement);
        }
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Yield(_) | Expr::YieldFrom(_) => self.0 = true,
            Expr::Lambda(_) => {}
            _ if self.0 => {}
            _ => walk_expr(self, expression),
        }
    }
}
