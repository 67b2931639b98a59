//! A block backward.

use super::{BlockGradients, BlockInput, BlockMatrix, BlockShape, BlockWeights, Keep, MatrixGradients, Saved, forward::forward, store};
use crate::error::check;
use crate::low_rank::{adapted_backward, adapted_gradients};
use crate::matmul::product::{Right, Target, product};
use crate::norm::rms_norm_again;
use crate::values::Activations;
use crate::{Cpu, KernelError, Matrix, Precision, attention_backward, rms_norm_backward, rotate_backward, rotate_forward, swiglu_backward};

/// dx [tokens, model_dim] from dy and what the forward pass was given; the parameters' gradients go into `gradients`.
///
/// # Errors
/// When a length does not fit the shape.
#[allow(clippy::too_many_arguments)]
pub fn block_backward(
    cpu: &Cpu,
    precision: Precision,
    shape: &BlockShape,
    weights: &BlockWeights<'_>,
    input: &BlockInput<'_>,
    x: &[f32],
    saved: &Saved,
    dy: &[f32],
    dx: &mut [f32],
    gradients: BlockGradients<'_>,
) -> Result<(), KernelError> {
    weights.check(shape)?;
    check("block backward", "x", input.tokens() * shape.model_dim, x.len())?;
    check("block backward", "dy", x.len(), dy.len())?;
    check("block backward", "dx", x.len(), dx.len())?;
    if saved.keep == Keep::Everything {
        check("block backward", "saved activations", input.tokens(), saved.attn_scales.len())?;
        return cpu.threads.enter(|| backward(cpu, precision, shape, weights, input, x, saved, dy, dx, gradients));
    }
    let mut spare = cpu.take_spare();
    let result = cpu.threads.enter(|| {
        forward(cpu, precision, shape, weights, input, x, None, &mut spare)?;
        backward(cpu, precision, shape, weights, input, x, &spare, dy, dx, gradients)
    });
    cpu.put_spare(spare);
    result
}

#[allow(clippy::too_many_arguments)]
fn backward(
    cpu: &Cpu,
    precision: Precision,
    shape: &BlockShape,
    weights: &BlockWeights<'_>,
    input: &BlockInput<'_>,
    x: &[f32],
    saved: &Saved,
    dy: &[f32],
    dx: &mut [f32],
    gradients: BlockGradients<'_>,
) -> Result<(), KernelError> {
    let BlockShape { model_dim, heads, ffn_dim, gated } = *shape;
    let (tokens, accumulate) = (input.tokens(), gradients.accumulate);
    let take = |width: usize| Activations::take(&cpu.arena, precision, tokens * width);
    let back = |dy: Matrix<'_>, w: &BlockMatrix<'_>, columns: usize, target: Target<'_>| -> Result<(), KernelError> {
        let whole = w.backward(dy.columns(), columns)?;
        match &w.low_rank {
            None => product(cpu, precision, dy.by_rows(), whole.right(false), target),
            Some(low) => adapted_backward(cpu, precision, dy, whole, columns, low, target)?,
        }
        Ok(())
    };
    let weigh = |dy: Matrix<'_>, x: Matrix<'_>, w: &BlockMatrix<'_>, to: MatrixGradients<'_>| -> Result<(), KernelError> {
        if let Some(dw) = to.whole {
            check("block backward", "a weight gradient", dy.columns() * x.columns(), dw.len())?;
            let target = if accumulate { Target::Accumulate(dw) } else { Target::Store(dw) };
            product(cpu, precision, dy.by_columns(), Right::Plain(x.by_columns()), target);
        }
        if let (Some(low), Some(to)) = (&w.low_rank, to.low_rank) {
            adapted_gradients(cpu, precision, dy, x, w.forward(dy.columns(), x.columns())?, low, accumulate, to)?;
        }
        Ok(())
    };
    // The norms' gradients come with those by their inputs; where nobody asks for them they go nowhere.
    let mut nowhere = [heads.head_dim, heads.head_dim, model_dim].map(|len| cpu.arena.take(len));
    let [no_q, no_k, no_norm] = &mut nowhere;
    let q_norm = gradients.q_norm.or(weights.head_norms.queries.map(|_| no_q.floats_mut()));
    let k_norm = gradients.k_norm.or(weights.head_norms.keys.map(|_| no_k.floats_mut()));

    // Feed-forward part.
    let dy_matrix = Matrix::f32(dy, tokens, model_dim)?;
    let mut d_gates = take(shape.proj_1_rows());
    {
        let (mut d_hidden, mut hidden) = (take(ffn_dim), take(ffn_dim));
        back(dy_matrix, &weights.proj_2, ffn_dim, store(d_hidden.values_mut()))?;
        let gates = saved.gates.values();
        swiglu_backward(cpu, gates, d_hidden.values(), ffn_dim, gated, d_gates.values_mut(), hidden.values_mut())?;
        weigh(dy_matrix, Matrix::new(hidden.values(), tokens, ffn_dim)?, &weights.proj_2, gradients.proj_2)?;
    }
    let mut d_normed = cpu.arena.take(tokens * model_dim);
    let mut normed = take(model_dim);
    let gates_matrix = Matrix::new(d_gates.values(), tokens, shape.proj_1_rows())?;
    back(gates_matrix, &weights.proj_1, model_dim, Target::Store(d_normed.floats_mut()))?;
    rms_norm_again(cpu, &saved.middle, weights.ffn_norm, normed.values_mut(), &saved.ffn_scales)?;
    weigh(gates_matrix, Matrix::new(normed.values(), tokens, model_dim)?, &weights.proj_1, gradients.proj_1)?;
    drop(d_gates);
    dx.copy_from_slice(dy);
    let ffn_norm = gradients.ffn_norm.unwrap_or(no_norm.floats_mut());
    rms_norm_backward(cpu, d_normed.floats(), &saved.middle, weights.ffn_norm, &saved.ffn_scales, dx, accumulate, ffn_norm)?;

    // Attention: dx is now the gradient of the state between both parts.
    let d_middle = Matrix::f32(dx, tokens, model_dim)?;
    let mut d_joint = take(heads.joint_width());
    {
        let mut d_attended = take(heads.query_width());
        back(d_middle, &weights.out_proj, heads.query_width(), store(d_attended.values_mut()))?;
        let attended = Matrix::new(saved.attended.values(), tokens, heads.query_width())?;
        weigh(d_middle, attended, &weights.out_proj, gradients.out_proj)?;
        let joint = saved.joint.values();
        let mut turned = take(heads.turned_width());
        rotate_forward(cpu, heads, input.sequence, joint, weights.head_norms, input.tables, turned.values_mut())?;
        let mut d_turned = cpu.arena.take(tokens * heads.turned_width());
        attention_backward(
            cpu,
            precision,
            input.attention(heads),
            turned.values(),
            joint,
            saved.attended.values(),
            &saved.log_sums,
            d_attended.values(),
            d_turned.floats_mut(),
            d_joint.values_mut(),
        )?;
        rotate_backward(
            cpu,
            heads,
            input.sequence,
            joint,
            weights.head_norms,
            input.tables,
            d_turned.floats(),
            d_joint.values_mut(),
            accumulate,
            [q_norm, k_norm],
        )?;
    }
    let joint_matrix = Matrix::new(d_joint.values(), tokens, heads.joint_width())?;
    back(joint_matrix, &weights.qkv_proj, model_dim, Target::Store(d_normed.floats_mut()))?;
    rms_norm_again(cpu, x, weights.attn_norm, normed.values_mut(), &saved.attn_scales)?;
    weigh(joint_matrix, Matrix::new(normed.values(), tokens, model_dim)?, &weights.qkv_proj, gradients.qkv_proj)?;
    let attn_norm = gradients.attn_norm.unwrap_or(no_norm.floats_mut());
    rms_norm_backward(cpu, d_normed.floats(), x, weights.attn_norm, &saved.attn_scales, dx, accumulate, attn_norm)
}
