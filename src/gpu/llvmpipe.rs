//! Changes to kernels that keep them from crashing Mesa's llvmpipe.
//!
//! llvmpipe computes a subgroup's lanes as one vector and does not jump where no lane is active: code after an early
//! `return`, and the last pass of each loop, run once more with all lanes masked off. From Mesa 25.1 on, two things go wrong
//! in such a pass, and the process crashes:
//!
//! - A load reads workgroup memory at the index of an inactive lane, which can be any number. Bounds checks help.
//! - A buffer that is first used in a loop has no address yet. Using it at the start of the kernel helps.
//!
//! Tried: Mesa 22.3 and 25.0 do not crash; 25.2 crashes, and does not with both changes.

use naga::{
    AddressSpace, ArraySize, BinaryOperator, Block, Expression, Function, GlobalVariable, Handle, Literal,
    Module, Span, Statement, TypeInner,
};

/// Whether kernels crash with this driver, in the form of [`GpuSummary::driver`](super::GpuSummary::driver).
pub(super) fn crashes(driver: &str) -> bool {
    let Some(llvmpipe) = driver.strip_prefix("llvmpipe") else { return false };
    let version = llvmpipe.split_once("Mesa ").map(|(_, version)| version.split('.'));
    let mut numbers = version.into_iter().flatten().map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= (25, 1),
        _ => true,
    }
}

/// Uses all storage buffers at the start of each kernel: `if (arrayLength(&a) == 0 || …) { return; }`. No buffer is empty,
/// but compilers do not know that.
pub(super) fn use_buffers_first(module: &mut Module) {
    let is_array = |variable: &GlobalVariable| {
        matches!(variable.space, AddressSpace::Storage { .. })
            && matches!(module.types[variable.ty].inner, TypeInner::Array { size: ArraySize::Dynamic, .. })
    };
    let buffers: Vec<Handle<GlobalVariable>> = module
        .global_variables
        .iter()
        .filter(|(_, variable)| is_array(variable))
        .map(|(handle, _)| handle)
        .collect();
    module.entry_points.iter_mut().for_each(|kernel| return_if_empty(&mut kernel.function, &buffers));
}

fn return_if_empty(kernel: &mut Function, buffers: &[Handle<GlobalVariable>]) {
    let expressions = &mut kernel.expressions;
    let mut add = |expression| expressions.append(expression, Span::UNDEFINED);
    let zero = add(Expression::Literal(Literal::U32(0)));
    let pointers: Vec<_> = buffers.iter().map(|buffer| add(Expression::GlobalVariable(*buffer))).collect();
    let mut computed = Vec::new();
    let mut add = |expression| {
        let handle = add(expression);
        computed.push(handle);
        handle
    };
    let mut any_empty = None;
    for pointer in pointers {
        let length = add(Expression::ArrayLength(pointer));
        let binary = |op, left, right| Expression::Binary { op, left, right };
        let is_empty = add(binary(BinaryOperator::Equal, length, zero));
        any_empty = Some(match any_empty {
            None => is_empty,
            Some(others) => add(binary(BinaryOperator::LogicalOr, others, is_empty)),
        });
    }
    let (Some(condition), Some(first), Some(last)) = (any_empty, computed.first(), computed.last()) else {
        return;
    };
    let accept = Block::from_vec(vec![Statement::Return { value: None }]);
    let mut body = Block::from_vec(vec![
        Statement::Emit(naga::Range::new_from_bounds(*first, *last)),
        Statement::If { condition, accept, reject: Block::new() },
    ]);
    body.append(&mut kernel.body);
    kernel.body = body;
}

#[cfg(test)]
mod tests {
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;

    #[test]
    fn versions_from_the_first_that_may_crash_on_are_known() {
        for (driver, expected) in [
            ("llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", false),
            ("llvmpipe Mesa 25.0.7-2 (LLVM 19.1.7)", false),
            ("llvmpipe Mesa 25.1.0-devel (LLVM 19.1.7)", true),
            ("llvmpipe Mesa 25.2.8-0ubuntu0.24.04.5 (LLVM 20.1.2)", true),
            ("llvmpipe Mesa 26.0.0 (LLVM 21.1.0)", true),
            ("llvmpipe", true),
            ("radv Mesa 25.2.8", false),
            ("NVIDIA 570.86", false),
            ("", false),
        ] {
            assert_eq!(crashes(driver), expected, "{driver}");
        }
    }

    #[test]
    fn a_kernel_uses_its_buffers_before_anything_else_and_stays_valid() {
        let source = "@group(0) @binding(0) var<uniform> rows: u32;
            @group(0) @binding(1) var<storage> a: array<vec4<f32>>;
            @group(0) @binding(2) var<storage, read_write> b: array<atomic<u32>>;
            @compute @workgroup_size(8) fn main(@builtin(global_invocation_id) at: vec3<u32>) {
                if (at.x >= rows) { return; }
                for (var i = 0u; i < at.x; i++) { atomicAdd(&b[i], u32(a[i].x)); }
            }";
        let mut module = naga::front::wgsl::parse_str(source).unwrap();
        use_buffers_first(&mut module);
        Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
        let body = &module.entry_points[0].function.body;
        assert!(matches!(body[0], Statement::Emit(_)) && matches!(body[1], Statement::If { .. }));
    }
}
