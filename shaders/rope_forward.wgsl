// rope_forward: turns each pair (x_j, x_{j + D/2}) of every head by its row's angle, or (sign -1) back.
//   x (N, HEADS D)  positions (N)  table (positions, D): cosines, then sines   ->   y (N, HEADS D)  = or += (ADD)
struct Params { rows: u32, sign: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
//#include step
//#include elements

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    if (group >= step.end) {
        return;
    }
    let pairs = elements_of(group, extent(params.rows), HEADS * HALF);
    for (var m = pairs.first + lane; m < pairs.last; m += 64u) {
        let j = m % HALF;
        let low = (m - j) * 2u + j;
        let high = low + HALF;
        let at = positions[m / (HEADS * HALF)] * 2u * HALF + j;
        let cosine = table[at];
        let sine = params.sign * table[at + HALF];
        var a = x[low] * cosine - x[high] * sine;
        var b = x[high] * cosine + x[low] * sine;
//#if ADD
        a += y[low];
        b += y[high];
//#end
        y[low] = a;
        y[high] = b;
    }
}
