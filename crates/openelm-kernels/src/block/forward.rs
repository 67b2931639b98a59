//! A block forward.

use super::{BlockInput, BlockMatrix, BlockShape, BlockWeights, Keep, Saved, store};
use crate::error::check;
use crate::low_rank::adapted_forward;
use crate::matmul::product::{Target, product};
use crate::values::Activations;
use crate::{Cpu, KernelError, Matrix, Precision, attention_forward, rms_norm_forward, rotate_forward, swiglu_forward};

/// y [tokens, model_dim] of x [tokens, model_dim]. `saved` gets what the backward pass needs, unless it keeps nothing.
///
/// # Errors
/// When a length does not fit the shape.
#[allow(clippy::too_many_arguments)]
pub fn block_forward(
    cpu: &Cpu,
    precision: Precision,
    shape: &BlockShape,
    weights: &BlockWeights<'_>,
    input: &BlockInput<'_>,
    x: &[f32],
    y: &mut [f32],
    saved: &mut Saved,
) -> Result<(), KernelError> {
    check("block", "y", x.len(), y.len())?;
    if saved.keep == Keep::Everything {
        return cpu.threads.enter(|| forward(cpu, precision, shape, weights, input, x, Some(y), saved));
    }
    let mut spare = cpu.take_spare();
    let result = cpu.threads.enter(|| forward(cpu, precision, shape, weights, input, x, Some(y), &mut spare));
    cpu.put_spare(spare);
    result
}

/// The forward pass; without `y` it stops where the backward pass needs no more.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward(
    cpu: &Cpu,
    precision: Precision,
    shape: &BlockShape,
    weights: &BlockWeights<'_>,
    input: &BlockInput<'_>,
    x: &[f32],
    y: Option<&mut [f32]>,
    saved: &mut Saved,
) -> Result<(), KernelError> {
    weights.check(shape)?;
    let BlockShape { model_dim, heads, ffn_dim, gated } = *shape;
    let tokens = input.tokens();
    check("block", "x", tokens * model_dim, x.len())?;
    saved.reserve(shape, tokens, precision);
    let multiply = |x: Matrix<'_>, w: &BlockMatrix<'_>, rows: usize, target: Target<'_>| -> Result<(), KernelError> {
        let weights = w.forward(rows, x.columns())?;
        match &w.low_rank {
            None => product(cpu, precision, x.by_rows(), weights.right(true), target),
            Some(low) => adapted_forward(cpu, precision, x, weights, rows, low, target)?,
        }
        Ok(())
    };

    let mut normed = Activations::take(&cpu.arena, precision, tokens * model_dim);
    rms_norm_forward(cpu, x, weights.attn_norm, normed.values_mut(), &mut saved.attn_scales)?;
    let input_of_joint = Matrix::new(normed.values(), tokens, model_dim)?;
    multiply(input_of_joint, &weights.qkv_proj, heads.joint_width(), store(saved.joint.values_mut()))?;
    {
        let mut turned = Activations::take(&cpu.arena, precision, tokens * heads.turned_width());
        let joint = saved.joint.values();
        rotate_forward(cpu, heads, input.sequence, joint, weights.head_norms, input.tables, turned.values_mut())?;
        let attended = saved.attended.values_mut();
        attention_forward(cpu, precision, input.attention(heads), turned.values(), joint, attended, &mut saved.log_sums)?;
    }
    let attended = Matrix::new(saved.attended.values(), tokens, heads.query_width())?;
    multiply(attended, &weights.out_proj, model_dim, Target::Sum(&mut saved.middle, x))?;

    rms_norm_forward(cpu, &saved.middle, weights.ffn_norm, normed.values_mut(), &mut saved.ffn_scales)?;
    let input_of_gates = Matrix::new(normed.values(), tokens, model_dim)?;
    multiply(input_of_gates, &weights.proj_1, shape.proj_1_rows(), store(saved.gates.values_mut()))?;
    drop(normed);
    let Some(y) = y else { return Ok(()) };
    let mut hidden = Activations::take(&cpu.arena, precision, tokens * ffn_dim);
    swiglu_forward(cpu, saved.gates.values(), ffn_dim, gated, hidden.values_mut())?;
    multiply(Matrix::new(hidden.values(), tokens, ffn_dim)?, &weights.proj_2, model_dim, Target::Sum(y, &saved.middle))
}
