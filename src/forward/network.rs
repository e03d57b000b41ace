//! A network as a flat list of operations over named values, in the order in which a forward pass runs them.
//!
//! Every parameterised operation is a [`Leaf`], linear in its own parameters; all others have none. A model file
//! (`llama.rs`, `bert.rs`, …) writes such a list with a [`Builder`] and reads like the paper.

use std::ops::Range;

use crate::data::Wants;
use crate::error::{Error, Result};
use crate::kernels::activate::Act;
use crate::kernels::attention::Heads;
use crate::kernels::normalize::Kind;
use crate::kernels::patches::Image;

/// A value of the list: `[rows, width]` in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub usize);

/// How many rows a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One for each position of each sample.
    Positions,
    /// One for each image patch.
    Patches,
    /// One for each sample.
    Samples,
}

/// Which row of a table, or of another value, each row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// Its token.
    Token,
    /// Its position in the sample, counted from this number on.
    Position(u32),
    /// The number of this token for itself, and for the others the numbers after that, without counting it.
    PositionPast(u32),
    /// Row 0, all of them.
    Zero,
    /// Row 0 for the first position of each sample, nothing for the others.
    ClassRow,
    /// The patch it stands for; nothing for the first position of each sample.
    PatchRow,
    /// The first position of each sample.
    First,
    /// Nothing.
    Nothing,
}

/// What a leaf computes from its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// x·Wᵀ + b, with W `[outputs, inputs]`; a convolution over patches is one too.
    Linear {
        /// Width of x.
        inputs: u32,
        /// Width of the result.
        outputs: u32,
    },
    /// x ∘ w + b, what follows a normalisation.
    Affine {
        /// Width of x and of the result.
        width: u32,
    },
    /// Row `i` of a table.
    Table {
        /// Rows of the table.
        rows: u32,
        /// Their width.
        width: u32,
    },
}

/// A parameterised operation.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Name of its module in the checkpoint.
    pub name: String,
    /// What it computes.
    pub form: Form,
    /// Tensor W, w, or the table.
    pub weight: String,
    /// Tensor b.
    pub bias: Option<String>,
    /// A second copy of the weight, such as that of a tied output head, which gets the same factor.
    pub copy: Option<String>,
    /// Whether features are measured here: not at position embeddings and class tokens (MAGIC, arXiv 2512.19320).
    pub tapped: bool,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// The linear or affine map of a leaf.
    Map {
        /// The leaf.
        leaf: usize,
        /// What it maps.
        x: Value,
        /// The result.
        out: Value,
    },
    /// Rows of a leaf's table, added to `onto` if that is given.
    Lookup {
        /// The leaf.
        leaf: usize,
        /// Which rows.
        index: Index,
        /// What they are added to; gone afterwards.
        onto: Option<Value>,
        /// The result.
        out: Value,
    },
    /// The output head: logits, of which only the loss is wanted.
    Head {
        /// The leaf; a tied one is that of the embedding.
        leaf: usize,
        /// What it maps.
        x: Value,
        /// True if the logits are those of the next token, false if they are of classes.
        tokens: bool,
    },
    /// Image patches as rows.
    Patches {
        /// The image's shape.
        image: Image,
        /// The result.
        out: Value,
    },
    /// Rows of another value, zero where the index has none.
    Select {
        /// The other value.
        x: Value,
        /// Which rows.
        index: Index,
        /// The result.
        out: Value,
    },
    /// Normalisation without its affine part.
    Normalize {
        /// Which.
        kind: Kind,
        /// Added to the variance.
        eps: f32,
        /// Elements that are normalised together: the row, or each head of it.
        width: u32,
        /// What is normalised.
        x: Value,
        /// The result.
        out: Value,
    },
    /// Rotary position embedding of each head.
    Rope {
        /// Heads in a row.
        heads: u32,
        /// Elements of a head.
        dim: u32,
        /// What is rotated; gone afterwards.
        x: Value,
        /// The result.
        out: Value,
    },
    /// Softmax attention.
    Attention {
        /// Shape and scale.
        heads: Heads,
        /// Queries, keys and values: a value, and the column they begin at.
        qkv: [(Value, u32); 3],
        /// Keys that each query sees.
        sight: Sight,
        /// The result.
        out: Value,
    },
    /// act(x).
    Activate {
        /// The function.
        act: Act,
        /// x.
        x: Value,
        /// The result.
        out: Value,
    },
    /// act(x) ∘ up.
    Gate {
        /// The function.
        act: Act,
        /// x.
        x: Value,
        /// What it gates.
        up: Value,
        /// The result.
        out: Value,
    },
    /// x + y.
    Add {
        /// x.
        x: Value,
        /// y.
        y: Value,
        /// The result.
        out: Value,
    },
}

/// The keys that a query sees, always of its own sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// All.
    All,
    /// All but the first.
    Patches,
    /// Those up to its own position, at most the last `window` of them.
    Causal {
        /// `u32::MAX` for all of them.
        window: u32,
    },
}

impl Op {
    /// The leaf, if it is one.
    pub fn leaf(&self) -> Option<usize> {
        match *self {
            Self::Map { leaf, .. } | Self::Lookup { leaf, .. } | Self::Head { leaf, .. } => Some(leaf),
            _ => None,
        }
    }

    /// What it computes; nothing for a head.
    pub fn writes(&self) -> Option<Value> {
        match *self {
            Self::Map { out, .. }
            | Self::Lookup { out, .. }
            | Self::Patches { out, .. }
            | Self::Select { out, .. }
            | Self::Normalize { out, .. }
            | Self::Rope { out, .. }
            | Self::Attention { out, .. }
            | Self::Activate { out, .. }
            | Self::Gate { out, .. }
            | Self::Add { out, .. } => Some(out),
            Self::Head { .. } => None,
        }
    }

    /// What it reads.
    pub fn reads(&self) -> Vec<Value> {
        match *self {
            Self::Map { x, .. }
            | Self::Head { x, .. }
            | Self::Select { x, .. }
            | Self::Normalize { x, .. }
            | Self::Rope { x, .. }
            | Self::Activate { x, .. } => vec![x],
            Self::Lookup { onto, .. } => onto.into_iter().collect(),
            Self::Attention { qkv, .. } => qkv.map(|(value, _)| value).to_vec(),
            Self::Gate { x, up, .. } => vec![x, up],
            Self::Add { x, y, .. } => vec![x, y],
            Self::Patches { .. } => Vec::new(),
        }
    }
}

/// Rotary frequencies of a network, before positions are known.
pub use super::rope::Rope;

/// A whole network.
pub struct Network {
    /// `model_type`.
    pub family: String,
    /// What it takes in.
    pub wants: Wants,
    /// All parameterised operations.
    pub leaves: Vec<Leaf>,
    /// All operations.
    pub ops: Vec<Op>,
    /// Rows and width of every value.
    pub values: Vec<(Rows, u32)>,
    /// Operations that belong together: the embedding, each layer, the end. Between them one or two values live.
    pub blocks: Vec<Range<usize>>,
    /// The last hidden state.
    pub hidden: Value,
    /// What of it the output head looks at: all positions of a language model, the class token of a classifier.
    pub seen: Value,
    /// What a classifier of one matrix reads, where there is one.
    pub classified: Option<Value>,
    /// Rotary position embedding, where there is one.
    pub rope: Option<Rope>,
    /// Positions of a sample that its tokens or patches do not account for: the class token.
    pub extra_rows: u32,
}

impl Network {
    /// The last operation that reads each value; 0 where none does.
    pub fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![0; self.values.len()];
        for (i, op) in self.ops.iter().enumerate() {
            op.reads().into_iter().for_each(|value| last[value.0] = i);
        }
        last
    }

    /// The widest value.
    pub fn widest(&self) -> u32 {
        self.values.iter().map(|(_, width)| *width).max().unwrap_or(1)
    }

    /// Outputs of a head's leaf: classes, or tokens.
    pub fn outputs(&self, leaf: usize) -> u32 {
        match self.leaves[leaf].form {
            Form::Linear { outputs, .. } => outputs,
            Form::Table { rows, .. } => rows,
            Form::Affine { width } => width,
        }
    }

    /// The head, where the checkpoint has one: (leaf, whether it predicts tokens).
    pub fn head(&self) -> Option<(usize, bool)> {
        self.ops.iter().find_map(|op| match *op {
            Op::Head { leaf, tokens, .. } => Some((leaf, tokens)),
            _ => None,
        })
    }
}

/// The shape of a tensor of the checkpoint, by name.
pub type Shapes<'a> = dyn Fn(&str) -> Option<Vec<u64>> + 'a;

/// Writes a [`Network`].
pub struct Builder<'a> {
    model: &'a str,
    shapes: &'a Shapes<'a>,
    /// Stands before every name.
    pub prefix: String,
    /// The classes of transformers that the head is for, as `config.json` names them.
    pub classes: Vec<String>,
    leaves: Vec<Leaf>,
    ops: Vec<Op>,
    values: Vec<(Rows, u32)>,
    starts: Vec<usize>,
    tapped: bool,
}

impl<'a> Builder<'a> {
    /// A network of the tensors that `shapes` knows, of the model called `model`.
    pub fn new(model: &'a str, shapes: &'a Shapes<'a>, prefix: String) -> Self {
        Self {
            model,
            shapes,
            prefix,
            classes: Vec::new(),
            leaves: Vec::new(),
            ops: Vec::new(),
            values: Vec::new(),
            starts: Vec::new(),
            tapped: true,
        }
    }

    /// Whether the checkpoint has `name`.
    pub fn has(&self, name: &str) -> bool {
        (self.shapes)(&format!("{}{name}", self.prefix)).is_some()
    }

    /// Whether the head is one for `task`, by the end of a class's name.
    pub fn is_for(&self, task: &str) -> bool {
        self.classes.iter().any(|class| class.ends_with(task))
    }

    /// The shape of `name`.
    pub fn shape(&self, name: &str) -> Result<Vec<u64>> {
        let name = format!("{}{name}", self.prefix);
        (self.shapes)(&name).ok_or_else(|| self.missing(&name))
    }

    /// The first dimension of `name`: a size, below 2²⁸.
    pub fn rows(&self, name: &str) -> Result<u32> {
        let shape = self.shape(name)?;
        let rows = shape.first().and_then(|rows| u32::try_from(*rows).ok()).filter(|rows| (1..1 << 28).contains(rows));
        rows.ok_or_else(|| {
            let what = format!("`{}{name}` of `{}` is {shape:?}, which is no weight", self.prefix, self.model);
            Error::input(what).hint("weight-space calibration knows no architecture: `--calibrate wsc`")
        })
    }

    fn missing(&self, name: &str) -> Error {
        Error::input(format!("`{}` has no tensor `{name}`, which its `config.json` asks for", self.model))
            .hint("weight-space calibration knows no architecture: `--calibrate wsc`")
    }

    /// Operations from here on are the next block.
    pub fn block(&mut self) {
        self.starts.push(self.ops.len());
    }

    fn value(&mut self, rows: Rows, width: u32) -> Value {
        self.values.push((rows, width));
        Value(self.values.len() - 1)
    }

    fn like(&mut self, x: Value, width: u32) -> Value {
        self.value(self.values[x.0].0, width)
    }

    fn width(&self, x: Value) -> u32 {
        self.values[x.0].1
    }

    /// A leaf whose tensors are `weight` and `bias`, if that is there.
    pub fn leaf(&mut self, name: &str, weight: &str, bias: &str, form: Form) -> Result<usize> {
        let full = |name: &str| format!("{}{name}", self.prefix);
        let (weight, bias) = (full(weight), full(bias));
        let shape = (self.shapes)(&weight).ok_or_else(|| self.missing(&weight))?;
        let elements: u64 = shape.iter().product();
        // Tables may have leading dimensions of 1, or be one row.
        let last = shape.last().copied().unwrap_or(1);
        let (wanted, outputs) = match form {
            Form::Linear { inputs, outputs } => (u64::from(inputs) * u64::from(outputs), outputs),
            Form::Affine { width } => (width.into(), width),
            Form::Table { rows, width } => (u64::from(rows) * u64::from(width), 0),
        };
        let first = shape.first().copied().unwrap_or(1);
        let fits = match form {
            Form::Linear { .. } => first == u64::from(outputs),
            Form::Affine { .. } => true,
            Form::Table { width, .. } => last == u64::from(width),
        };
        if elements != wanted || !fits {
            let what = format!("`{weight}` of `{}` is {shape:?}, which `config.json` does not say", self.model);
            return Err(Error::input(what).hint("weight-space calibration knows no architecture: `--calibrate wsc`"));
        }
        let bias = (self.shapes)(&bias).map(|shape| (bias, shape));
        if let Some((bias, shape)) = bias.as_ref().filter(|(_, shape)| shape[..] != [u64::from(outputs)]) {
            return Err(Error::input(format!("`{bias}` of `{}` is {shape:?}, not [{outputs}]", self.model))
                .hint("weight-space calibration knows no architecture: `--calibrate wsc`"));
        }
        let (bias, tapped) = (bias.map(|(bias, _)| bias), self.tapped);
        self.leaves.push(Leaf { name: full(name), form, weight, bias, copy: None, tapped });
        Ok(self.leaves.len() - 1)
    }

    /// x·Wᵀ + b, with the bias that the checkpoint has.
    pub fn linear(&mut self, name: &str, x: Value, outputs: u32) -> Result<Value> {
        self.linear_of(name, &format!("{name}.weight"), &format!("{name}.bias"), x, outputs)
    }

    /// [`Builder::linear`] with tensors of other names.
    pub fn linear_of(&mut self, name: &str, weight: &str, bias: &str, x: Value, outputs: u32) -> Result<Value> {
        let leaf = self.leaf(name, weight, bias, Form::Linear { inputs: self.width(x), outputs })?;
        let out = self.like(x, outputs);
        self.ops.push(Op::Map { leaf, x, out });
        Ok(out)
    }

    /// Normalisation of each row.
    pub fn norm(&mut self, name: &str, kind: Kind, eps: f32, x: Value) -> Result<Value> {
        let width = self.width(x);
        self.head_norm(name, kind, eps, width, x)
    }

    /// Normalisation of each run of `width` elements.
    pub fn head_norm(&mut self, name: &str, kind: Kind, eps: f32, width: u32, x: Value) -> Result<Value> {
        let (weight, gamma) = (format!("{name}.weight"), format!("{name}.gamma"));
        // The first files of BERT have names from TensorFlow.
        let leaf = match self.has(&gamma) && !self.has(&weight) {
            true => self.leaf(name, &gamma, &format!("{name}.beta"), Form::Affine { width })?,
            false => self.leaf(name, &weight, &format!("{name}.bias"), Form::Affine { width })?,
        };
        let (normal, out) = (self.like(x, self.width(x)), self.like(x, self.width(x)));
        self.ops.push(Op::Normalize { kind, eps, width, x, out: normal });
        self.ops.push(Op::Map { leaf, x: normal, out });
        Ok(out)
    }

    /// Rows of the table `weight`, added to `onto`.
    pub fn lookup(&mut self, weight: &str, shape: (u32, u32), index: Index, onto: Option<Value>) -> Result<Value> {
        let name = weight.strip_suffix(".weight").unwrap_or(weight);
        let leaf = self.leaf(name, weight, "\0", Form::Table { rows: shape.0, width: shape.1 })?;
        let out = self.value(Rows::Positions, shape.1);
        self.ops.push(Op::Lookup { leaf, index, onto, out });
        Ok(out)
    }

    /// [`Builder::lookup`] in a table at which nothing is measured: positions, class tokens.
    pub fn untapped(&mut self, weight: &str, shape: (u32, u32), index: Index, onto: Value) -> Result<Value> {
        self.tapped = false;
        let out = self.lookup(weight, shape, index, Some(onto));
        self.tapped = true;
        out
    }

    /// Logits by a leaf of their own.
    pub fn head(&mut self, name: &str, x: Value, outputs: u32, tokens: bool) -> Result<()> {
        let form = Form::Linear { inputs: self.width(x), outputs };
        let leaf = self.leaf(name, &format!("{name}.weight"), &format!("{name}.bias"), form)?;
        self.ops.push(Op::Head { leaf, x, tokens });
        Ok(())
    }

    /// Logits by the embedding's table, leaf 0; `copy` is where the checkpoint may hold it once more.
    pub fn tied_head(&mut self, copy: &str, x: Value) {
        let copy = format!("{}{copy}", self.prefix);
        self.leaves[0].copy = (self.shapes)(&copy).is_some().then_some(copy);
        self.ops.push(Op::Head { leaf: 0, x, tokens: true });
    }

    /// Image patches as rows.
    pub fn patches(&mut self, image: Image) -> Value {
        let out = self.value(Rows::Patches, image.channels * image.patch * image.patch);
        self.ops.push(Op::Patches { image, out });
        out
    }

    /// Rows of `x`.
    pub fn select(&mut self, x: Value, index: Index) -> Value {
        let rows = if index == Index::First { Rows::Samples } else { Rows::Positions };
        let out = self.value(rows, self.width(x));
        self.ops.push(Op::Select { x, index, out });
        out
    }

    /// The mean of all positions but the first of each sample, as attention to all of them alike.
    pub fn mean(&mut self, heads: Heads, x: Value) -> Value {
        let nothing = self.select(x, Index::Nothing);
        let mean = self.attention(heads, [nothing, x, x], Sight::Patches);
        self.select(mean, Index::First)
    }

    /// Rotary position embedding.
    pub fn rope(&mut self, heads: u32, dim: u32, x: Value) -> Value {
        let out = self.like(x, self.width(x));
        self.ops.push(Op::Rope { heads, dim, x, out });
        out
    }

    /// Attention of separate queries, keys and values.
    pub fn attention(&mut self, heads: Heads, [q, k, v]: [Value; 3], sight: Sight) -> Value {
        self.attention_at(heads, [(q, 0), (k, 0), (v, 0)], sight)
    }

    /// Attention of queries, keys and values that begin at a column.
    pub fn attention_at(&mut self, heads: Heads, qkv: [(Value, u32); 3], sight: Sight) -> Value {
        let out = self.like(qkv[0].0, heads.heads * heads.dim);
        self.ops.push(Op::Attention { heads, qkv, sight, out });
        out
    }

    /// act(x).
    pub fn activate(&mut self, act: Act, x: Value) -> Value {
        let out = self.like(x, self.width(x));
        self.ops.push(Op::Activate { act, x, out });
        out
    }

    /// act(x) ∘ up.
    pub fn gate(&mut self, act: Act, x: Value, up: Value) -> Value {
        let out = self.like(x, self.width(x));
        self.ops.push(Op::Gate { act, x, up, out });
        out
    }

    /// x + y.
    pub fn add(&mut self, x: Value, y: Value) -> Value {
        let out = self.like(x, self.width(x));
        self.ops.push(Op::Add { x, y, out });
        out
    }

    /// The network, whose last hidden state is `hidden`, of which a head looks at `seen`.
    pub fn finish(self, family: &str, wants: Wants, [hidden, seen]: [Value; 2], rope: Option<Rope>) -> Network {
        let ends = self.starts.iter().skip(1).copied().chain([self.ops.len()]);
        let blocks = self.starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect();
        let classified = self.ops.iter().find_map(|op| match *op {
            Op::Head { leaf, x, tokens: false } if self.leaves[leaf].weight == "classifier.weight" => Some(x),
            _ => None,
        });
        let extra_rows = u32::from(matches!(wants, Wants::Pixels { .. }));
        Network {
            family: family.to_owned(),
            wants,
            leaves: self.leaves,
            ops: self.ops,
            values: self.values,
            blocks,
            hidden,
            seen,
            classified,
            rope,
            extra_rows,
        }
    }
}
