//! Which tensors are computed again where not all are.

use std::cmp::Reverse;

use crate::checkpoint::sha256;

/// Part of the bytes that a sample takes: one in this many.
const PART: u64 = 10;

/// Tensors of a sample, at least.
const HANDFUL: usize = 6;

/// The largest of `tensors`, given as name and size, the smallest, and others in an order that only the receipt of this
/// SHA-256 knows, up to a tenth of the bytes.
pub fn sample(tensors: &[(&str, u64)], receipt: &str) -> Vec<bool> {
    let budget = tensors.iter().map(|(_, bytes)| bytes).sum::<u64>() / PART;
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_cached_key(|place| sha256(format!("{receipt} {}", tensors[*place].0)));
    let largest = (0..tensors.len()).max_by_key(|place| (tensors[*place].1, Reverse(*place)));
    let smallest = (0..tensors.len()).filter(|place| tensors[*place].1 > 0).min_by_key(|place| tensors[*place].1);
    let mut chosen = vec![false; tensors.len()];
    let (mut count, mut bytes) = (0, 0);
    for place in largest.into_iter().chain(smallest).chain(order) {
        if !chosen[place] && (count < HANDFUL || bytes + tensors[place].1 <= budget) {
            chosen[place] = true;
            (count, bytes) = (count + 1, bytes + tensors[place].1);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_bytes_with_both_ends() {
        let names: Vec<String> = (0..100).map(|i| format!("layers.{i}")).collect();
        let tensors: Vec<(&str, u64)> = names.iter().zip(1000..).map(|(name, bytes)| (name.as_str(), bytes)).collect();
        let [one, two] = ["one", "two"].map(|receipt| sample(&tensors, receipt));
        assert!(one[0] && one[99] && two[0] && two[99] && one != two);
        for chosen in [&one, &two] {
            let bytes: u64 = tensors.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|((_, n), _)| n).sum();
            let all: u64 = tensors.iter().map(|(_, bytes)| bytes).sum();
            assert!(bytes * 10 <= all && bytes * 10 > all - 20_000, "{bytes} of {all}");
        }
        assert_eq!(one, sample(&tensors, "one"));
        assert_eq!(sample(&tensors[..5], "one"), [true; 5]);
        assert!(sample(&[], "one").is_empty());
    }
}
