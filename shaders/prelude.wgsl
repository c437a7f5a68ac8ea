// Precedes every kernel's own text.

// The values that change between two replays of a plan, and between the pieces of a split launch.
struct Step {
    base: u32,                    // this piece's first workgroup
    end: u32,                     // the workgroup after this piece's last
    seed: u32,
    draw: u32,
    extents: array<vec4<u32>, 2>, // live extents: tokens, targets, …
    scalars: array<vec4<f32>, 2>, // learning rate, …
}
@group(1) @binding(0) var<uniform> step: Step;

// Values that are the same in all lanes of a workgroup; the lane is a separate parameter, so that a browser's compiler
// knows that they are uniform.
struct Workgroup {
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
}

// Workgroups beyond 65,535 continue in y. Those from step.end on do nothing.
fn group_index(workgroup: Workgroup) -> u32 {
    return step.base + workgroup.id.x + workgroup.id.y * workgroup.count.x;
}

// An extent as written by the host: a number, or (top bit set) the index of a live extent.
fn extent(code: u32) -> u32 {
    if ((code & 0x80000000u) == 0u) {
        return code;
    }
    let i = code & 7u;
    return step.extents[i >> 2u][i & 3u];
}

fn scalar(i: u32) -> f32 {
    return step.scalars[i >> 2u][i & 3u];
}
