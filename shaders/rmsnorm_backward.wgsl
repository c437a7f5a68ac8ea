// rmsnorm_backward: through y = x inv w, ROWS rows a workgroup.
//   dy, x (N, C)  w (C)  inv (N) saved by the forward pass   ->   dx (N, C)  = or += (ADD)   and, if TO_WEIGHT,
//   dw (workgroups, C)  =  Σ dy x inv over the workgroup's rows; sum_slices adds them up
// dx = inv (g - x inv² mean(g x)),  g = dy w
struct Params { rows: u32, cols: u32 }
//#include element
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<Element>;
@group(0) @binding(2) var<storage, read> x: array<Element>;
@group(0) @binding(3) var<storage, read> w: array<Element>;
@group(0) @binding(4) var<storage, read> inv: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<Element>;
//#if TO_WEIGHT
@group(0) @binding(6) var<storage, read_write> dw: array<Element>;
//#end
//#include step

// Lanes that share a row's sum.
const LANES = 64u / ROWS;
var<workgroup> parts: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = group_index(id, count);
    let first = group * ROWS;
    let rows = min(first + ROWS, extent(params.rows));
    // In elements of the buffers.
//#if ALIGNED
    let cols = params.cols / 4u;
//#else
    let cols = params.cols;
//#end
    let row = first + lane / LANES;
    var part = 0.0;
    if (group < step.end && row < rows) {
        for (var c = lane % LANES; c < cols; c += LANES) {
//#if ALIGNED
            part += dot(dy[row * cols + c] * w[c], x[row * cols + c]);
//#else
            part += dy[row * cols + c] * w[c] * x[row * cols + c];
//#end
        }
    }
    parts[lane] = part;
    workgroupBarrier();
    if (group >= step.end) {
        return;
    }
    for (var c = lane; c < cols; c += 64u) {
        var to_weight = Element();
        for (var n = first; n < rows; n++) {
            var sum = 0.0;
            for (var l = 0u; l < LANES; l++) {
                sum += parts[(n - first) * LANES + l];
            }
            let factor = inv[n];
            let at = n * cols + c;
            let scaled = factor * x[at];
            var v = factor * (dy[at] * w[c] - scaled * (factor * sum / f32(params.cols)));
            to_weight += dy[at] * scaled;
//#if ADD
            v += dx[at];
//#end
            dx[at] = v;
        }
//#if TO_WEIGHT
        dw[group * cols + c] = to_weight;
//#end
    }
}
