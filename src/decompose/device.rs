//! Matrices on the device: loaded from the host, multiplied and added by lists of kernel calls, and read back.

use super::matrix::Matrix;
use crate::checkpoint::Dtype;
use crate::error::Result;
use crate::executor::{Executor, Inputs};
use crate::kept::Kept;
use crate::kernels::matmul::{Place, Shape, Weight};
use crate::kernels::{add, deviation, matmul, scale, transpose, widen};
use crate::recording::{Buf, Extent, Recording, Results, Size};

/// A block of no shape: lists bring their own.
const NONE: Extent = Extent { first_row: 0, rows: 1, row_len: 1, n: 1 };

/// A matrix on the device.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    id: usize,
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub cols: usize,
}

impl Remote {
    /// The same memory, seen as another shape of the same size.
    pub fn shaped(self, rows: usize, cols: usize) -> Self {
        Self { rows, cols, ..self }
    }

    fn sides(&self) -> (u32, u32) {
        (self.rows as u32, self.cols as u32)
    }
}

/// An executor, and what it keeps.
pub struct Device<'a> {
    executor: &'a Executor,
    kept: Kept,
    nothing: Inputs,
    results: Results,
}

impl<'a> Device<'a> {
    /// Nothing kept yet.
    pub fn new(executor: &'a Executor) -> Result<Self> {
        let nothing = executor.load(&[], &mut |_, _, _| Ok(()))?;
        Ok(Self { executor, kept: Kept::new(executor), nothing, results: Results::default() })
    }

    /// Bytes that [`super::polar::by_products`] takes: the matrix three times, and four squares of its smaller side.
    pub fn polar_bytes(rows: usize, cols: usize) -> u64 {
        let (all, side) = (rows as u64 * cols as u64, rows.min(cols) as u64);
        4 * (4 * all + 4 * side * side)
    }

    /// A matrix of any contents.
    pub fn make(&mut self, rows: usize, cols: usize) -> Result<Remote> {
        let id = self.kept.take(self.executor, (rows * cols) as u32)?;
        Ok(Remote { id, rows, cols })
    }

    /// A copy of `x`.
    pub fn load(&mut self, x: &Matrix) -> Result<Remote> {
        let out = self.make(x.rows, x.cols)?;
        self.load_into(x, out)?;
        Ok(out)
    }

    /// Replaces the contents of `out`.
    pub fn load_into(&mut self, x: &Matrix, out: Remote) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(&x.values);
        let inputs = self.executor.load(&[bytes.len()], &mut |_, offset, buffer| {
            buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
            Ok(())
        })?;
        let n = x.values.len() as u32;
        let mut list = Recording::new(1);
        let stored = list.input("matrix", 0, Dtype::F32);
        let kept = list.kept("kept", out.id, Size::Planes(1));
        widen::record(&mut list, stored, kept, 0);
        let extent = Extent { first_row: 0, rows: x.rows as u32, row_len: x.cols as u32, n };
        self.executor.run_kept(&list, &extent, &inputs, &mut self.kept, &mut self.results)?;
        self.executor.unload(inputs);
        Ok(())
    }

    /// The matrix on the host.
    pub fn read(&mut self, x: Remote) -> Result<Matrix> {
        let mut list = Recording::new(1);
        let kept = self.buf(&mut list, x);
        let one = list.floats("one", &[1.0]);
        let out = list.result("matrix", Size::Planes(1));
        scale::record(&mut list, kept, one, out);
        let n = (x.rows * x.cols) as u32;
        let extent = Extent { first_row: 0, rows: x.rows as u32, row_len: x.cols as u32, n };
        self.executor.run_kept(&list, &extent, &self.nothing, &mut self.kept, &mut self.results)?;
        Ok(Matrix { rows: x.rows, cols: x.cols, values: self.results.floats(0).to_vec() })
    }

    fn buf(&self, list: &mut Recording, x: Remote) -> Buf {
        list.kept("kept", x.id, Size::Fixed(self.kept.words(x.id)))
    }

    fn run(&mut self, list: &Recording) -> Result<()> {
        self.executor.run_kept(list, &NONE, &self.nothing, &mut self.kept, &mut self.results)
    }

    /// out = x·wᵀ. A submission of its own, since a large one takes its time.
    pub fn product(&mut self, x: Remote, w: Remote, out: Remote) -> Result<()> {
        let mut list = Recording::new(1);
        let [x_buf, w_buf, out_buf] = [x, w, out].map(|m| self.buf(&mut list, m));
        let shape = Shape { rows: x.rows as u32, cols: w.rows as u32, depth: x.cols as u32 };
        let place = Place { buf: out_buf, stride: out.cols as u32, column: 0 };
        matmul::record(&mut list, shape, x_buf, Weight { buf: w_buf, from: 0 }, None, place);
        self.run(&list)
    }

    /// out = a·x + b·y.
    pub fn sum(&mut self, (a, x): (f64, Remote), (b, y): (f64, Remote), out: Remote) -> Result<()> {
        let mut list = Recording::new(1);
        let [x_buf, y_buf, out_buf] = [x, y, out].map(|m| self.buf(&mut list, m));
        add::record(&mut list, x.sides(), a as f32, x_buf, b as f32, y_buf, out_buf);
        self.run(&list)
    }

    /// out = xᵀ.
    pub fn transpose(&mut self, x: Remote, out: Remote) -> Result<()> {
        let mut list = Recording::new(1);
        let [x_buf, out_buf] = [x, out].map(|m| self.buf(&mut list, m));
        transpose::record(&mut list, x.sides(), x_buf, out_buf);
        self.run(&list)
    }

    /// The Frobenius norm.
    pub fn norm(&mut self, x: Remote) -> Result<f64> {
        let mut list = Recording::new(1);
        let x_buf = self.buf(&mut list, x);
        let stats = list.result("norms", Size::Fixed(deviation::WIDTH * x.rows as u32));
        deviation::record(&mut list, x.sides(), x_buf, x_buf, stats);
        self.run(&list)?;
        let rows: &[deviation::Deviation] = bytemuck::cast_slice(self.results.words(0));
        Ok(rows.iter().map(|row| f64::from(row.square_a)).sum::<f64>().sqrt())
    }

    /// x·wᵀ of matrices on the host.
    pub fn multiply(&mut self, x: &Matrix, w: &Matrix) -> Result<Matrix> {
        let (x, w) = (self.load(x)?, self.load(w)?);
        let out = self.make(x.rows, w.rows)?;
        self.product(x, w, out)?;
        self.read(out)
    }
}
