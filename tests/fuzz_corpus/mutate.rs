//! Mutations as a fuzzer makes them, the same in every run.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Numbers at which parsers go wrong.
const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x40, 0x10, 0x05];
/// Most changes to one input.
const MOST_CHANGES: usize = 6;
/// Longest input: a receive buffer.
const LONGEST: usize = 65_535;

/// A source of mutations.
pub struct Mutator(ChaCha12Rng);

impl Mutator {
    /// A source of its own for each target.
    pub fn new(target: &str) -> Mutator {
        let mut seed = [0; 32];
        for (byte, letter) in seed.iter_mut().zip(target.bytes()) {
            *byte = letter;
        }
        Mutator(ChaCha12Rng::from_seed(seed))
    }

    /// Mutation `number` of one of `inputs`.
    pub fn mutate(&mut self, inputs: &[Vec<u8>], number: usize) -> Vec<u8> {
        let mut data = inputs[number % inputs.len()].clone();
        for _ in 0..1 + self.below(MOST_CHANGES) {
            self.change(&mut data, inputs);
        }
        data.truncate(LONGEST);
        data
    }

    fn change(&mut self, data: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.place(data.len());
        match self.below(9) {
            0 => self.set(data, at, |byte, random| byte ^ (1 << (random % 8))),
            1 => self.set(data, at, |_, random| random),
            2 => self.set(data, at, |_, random| TELLING[usize::from(random) % TELLING.len()]),
            3 => self.set(data, at, |byte, random| byte.wrapping_add(random % 35).wrapping_sub(17)),
            4 => data.truncate(at),
            5 => {
                let end = (at + 1 + self.below(24)).min(data.len());
                data.drain(at.min(end)..end);
            }
            6 => {
                let run: Vec<u8> = (0..1 + self.below(24)).map(|_| self.0.next_u32() as u8).collect();
                data.splice(at..at, run);
            }
            7 => {
                let end = (at + 1 + self.below(200)).min(data.len());
                let again = data[at.min(end)..end].to_vec();
                data.splice(at..at, again);
            }
            _ => {
                let other = &inputs[self.below(inputs.len())];
                let from = self.place(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }

    fn set(&mut self, data: &mut [u8], at: usize, change: impl Fn(u8, u8) -> u8) {
        let random = self.0.next_u32() as u8;
        if let Some(byte) = data.get_mut(at) {
            *byte = change(*byte, random);
        }
    }

    /// A place in `length` bytes, more often near the front, where the headers are.
    fn place(&mut self, length: usize) -> usize {
        let reach = if self.below(2) == 0 { length.min(96) } else { length };
        self.below(reach + 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0.next_u32() as usize % bound.max(1)
    }
}
