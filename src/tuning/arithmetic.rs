//! Checks whether the requested arithmetic gives correct results on this GPU.

use super::products::product_case;
use crate::Wait;
use crate::error::Result;
use crate::gpu::{Arithmetic, Format, Gpu, ProductForm};
use crate::ops::{Case, Input};

/// Falls back to f32 if products in the arithmetic of T2 disagree with [`crate::reference`], or the driver cannot
/// compile them; returns the arithmetic that failed.
///
/// # Errors
/// A lost device.
pub fn check_arithmetic(gpu: &Gpu) -> Result<Option<Arithmetic>> {
    let asked_for = gpu.arithmetic();
    // With few rows of large numbers, and with many rows.
    let agrees =
        |n, scale| half_product(n, 132, 92, scale).check(gpu).wait().is_ok_and(|report| report.passed());
    if gpu.is_measuring() || asked_for == Arithmetic::F32 || agrees(8, 1e6) && agrees(131, 1.0) {
        return Ok(None);
    }
    gpu.idle().wait()?;
    gpu.set_arithmetic(Arithmetic::F32);
    Ok(Some(asked_for))
}

/// A product with a frozen f16 matrix; `scale` is that of x.
fn half_product(n: usize, i: usize, o: usize, scale: f32) -> Case {
    let mut case = product_case(ProductForm::AlongBoth, n, o, i, Format::F16);
    case.inputs = vec![Input::normal(1, n, i, scale), Input::normal(2, o, i, 1.0).stored(Format::F16)];
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::testing;

    #[test]
    fn arithmetic_that_the_driver_cannot_compile_is_not_used() {
        let Some(gpu) = testing::gpu() else { return };
        assert_eq!(check_arithmetic(&gpu).unwrap(), None, "f32");
        // The device was opened without cooperative matrices.
        let foreign = Arithmetic::Cooperative { size: 16, lanes: 32 };
        gpu.set_arithmetic(foreign);
        assert_eq!(check_arithmetic(&gpu).unwrap(), Some(foreign));
        assert_eq!(gpu.arithmetic(), Arithmetic::F32);
        assert!(
            product_case(ProductForm::AlongBoth, 8, 64, 64, Format::F32).check(&gpu).wait().unwrap().passed(),
            "the device still works"
        );
    }
}
