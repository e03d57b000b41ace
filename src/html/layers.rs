//! Tensors summed up: over all of them, over a part of the network, over a layer of it.

use std::collections::BTreeMap;

use super::document::Tensor;
use crate::part::{Depth, Part};

/// Most layers that are told apart: of more, neighbours are summed up together.
const LAYERS: u32 = 200;
/// Most stacks of layers that are shown.
const STACKS: usize = 4;

/// Norms of task vectors over several tensors together, and their factors.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Tensors that were merged.
    pub tensors: usize,
    /// Their elements.
    pub elements: u64,
    experts: Vec<f64>,
    dots: Vec<f64>,
    merged: f64,
    calibrated: f64,
    /// Sum of their mean ξ.
    xi: f64,
    factors: usize,
    /// The smallest and the largest mean ξ.
    pub xi_range: [f64; 2],
}

impl Sums {
    /// Over `tensors`.
    pub fn of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Self {
        let mut sums = Self { xi_range: [f64::INFINITY, f64::NEG_INFINITY], ..Self::default() };
        tensors.into_iter().for_each(|tensor| sums.add(tensor));
        sums
    }

    fn add(&mut self, tensor: &Tensor) {
        self.tensors += 1;
        self.elements = self.elements.saturating_add(tensor.elements);
        let count = self.experts.len().max(tensor.experts.len());
        self.experts.resize(count, 0.0);
        self.dots.resize(count, 0.0);
        for (sum, norm) in self.experts.iter_mut().zip(&tensor.experts) {
            *sum += norm * norm;
        }
        for ((sum, norm), cosine) in self.dots.iter_mut().zip(&tensor.experts).zip(&tensor.cosines) {
            // The cosine with a vector of no length is no number, and its product is nothing.
            let product = norm * tensor.merged;
            *sum += if product == 0.0 { 0.0 } else { product * cosine };
        }
        self.merged += tensor.merged * tensor.merged;
        self.calibrated += tensor.calibrated * tensor.calibrated;
        if let Some(xi) = tensor.xi {
            self.xi += xi.mean;
            self.factors += 1;
            self.xi_range = [self.xi_range[0].min(xi.mean), self.xi_range[1].max(xi.mean)];
        }
    }

    /// ‖τ_k‖ of each expert.
    pub fn experts(&self) -> Vec<f64> {
        self.experts.iter().map(|square| square.sqrt()).collect()
    }

    /// Their mean.
    pub fn expert(&self) -> f64 {
        self.experts().iter().sum::<f64>() / self.experts.len().max(1) as f64
    }

    /// ‖τ_m‖ before calibration.
    pub fn merged(&self) -> f64 {
        self.merged.sqrt()
    }

    /// And after it.
    pub fn calibrated(&self) -> f64 {
        self.calibrated.sqrt()
    }

    /// Cosine of each expert with the merge.
    pub fn cosines(&self) -> Vec<f64> {
        let cosine = |(dot, norm): (&f64, f64)| dot / (norm * self.merged());
        self.dots.iter().zip(self.experts()).map(cosine).collect()
    }

    /// Mean of the tensors' mean ξ, if any has one.
    pub fn xi(&self) -> Option<f64> {
        (self.factors > 0).then(|| self.xi / self.factors as f64)
    }
}

/// Something for each layer of a part of the network.
pub type Layers<T> = BTreeMap<u32, T>;

/// Layers that follow each other.
#[derive(Debug)]
pub struct Stack<'a, T> {
    /// What their names begin with.
    pub name: &'a str,
    /// Number of the last.
    pub last: u32,
    /// How many neighbours are taken together.
    pub width: u32,
    /// Of each part what its layers hold.
    pub parts: BTreeMap<Part, Layers<Vec<&'a T>>>,
}

/// The stacks of `items` with these names, the largest first, and how many items are in none of them.
pub fn stacks<'a, T>(items: impl Iterator<Item = &'a T> + Clone, name: fn(&T) -> &str) -> (Vec<Stack<'a, T>>, usize) {
    let placed = |item: &'a T| Depth::of(name(item)).map(|depth| (depth, item));
    let mut sizes: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
    for (depth, _) in items.clone().filter_map(placed) {
        let (count, last) = sizes.entry(depth.stack).or_default();
        (*count, *last) = (*count + 1, depth.layer.max(*last));
    }
    let mut order: Vec<(&str, (usize, u32))> = sizes.into_iter().filter(|(_, (_, last))| *last > 0).collect();
    order.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    order.truncate(STACKS);
    let mut stacks: Vec<Stack<'_, T>> = order
        .into_iter()
        .map(|(name, (_, last))| Stack { name, last, width: last / LAYERS + 1, parts: BTreeMap::new() })
        .collect();
    let mut outside = 0;
    for item in items {
        let found = placed(item)
            .and_then(|(depth, _)| Some((depth.layer, stacks.iter_mut().find(|stack| stack.name == depth.stack)?)));
        let Some((layer, stack)) = found else {
            outside += 1;
            continue;
        };
        let layer = layer / stack.width * stack.width;
        stack.parts.entry(Part::of(name(item))).or_default().entry(layer).or_default().push(item);
    }
    (stacks, outside)
}

impl<T> Stack<'_, T> {
    /// What a layer is called.
    pub fn layer(&self, at: u32) -> String {
        match self.width {
            1 => format!("layer {at}"),
            width => format!("layers {at} to {}", (at + width - 1).min(self.last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, norm: f64, cosine: f64) -> Tensor {
        let (experts, cosines) = (vec![norm, norm], vec![cosine, cosine]);
        Tensor { name: name.into(), elements: 1, experts, cosines, merged: norm, calibrated: norm, ..Tensor::default() }
    }

    #[test]
    fn sums_are_those_of_one_long_vector() {
        let sums = Sums::of(&[tensor("a", 3.0, 1.0), tensor("b", 4.0, 0.0), tensor("c", 0.0, f64::NAN)]);
        assert_eq!((sums.tensors, sums.expert(), sums.merged(), sums.calibrated()), (3, 5.0, 5.0, 5.0));
        assert_eq!((sums.cosines(), sums.xi()), (vec![9.0 / 25.0; 2], None));
        let none = Sums::of([]);
        assert!(none.expert() == 0.0 && none.cosines().is_empty());
    }

    #[test]
    fn layers_are_found_in_the_largest_stacks() {
        let mut names: Vec<String> = (0..450).map(|layer| format!("h.{layer}.mlp.w")).collect();
        names.extend(["one.0.w", "embed.weight", "tower.0.attn.w", "tower.1.attn.w"].map(str::to_owned));
        let tensors: Vec<Tensor> = names.iter().map(|name| tensor(name, 1.0, 1.0)).collect();
        let (stacks, outside) = stacks(tensors.iter(), |tensor| &tensor.name);
        assert_eq!(stacks.iter().map(|stack| (stack.name, stack.last)).collect::<Vec<_>>(), [("h", 449), ("tower", 1)]);
        assert_eq!(outside, 2, "a stack of one layer is none");
        let mlp = &stacks[0].parts[&Part::Mlp];
        assert_eq!((stacks[0].width, mlp.len(), mlp[&447].len()), (3, 150, 3));
        assert_eq!((stacks[0].layer(447), stacks[1].layer(1)), ("layers 447 to 449".into(), "layer 1".into()));
    }
}
