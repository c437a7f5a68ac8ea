// norm_backward: the gradient of y = n weight (+ bias), n = (x - mean) inverse; `share` rows per workgroup, ROWS groups
// of columns at a time; see norm_forward.
//   dy, x (N, stride)  weight (cols)  inverse, mean (N · groups) of the forward pass
//   ->   dx (N, stride)  = or += (ADD)   and, if TO_WEIGHT,
//   dweight, dbias (workgroups, cols)  =  Σ dy n, Σ dy over the workgroup's rows, summed afterwards
// dx = inverse (g - n mean(g n) (- mean(g), with LAYER)),  g = dy weight

// Lanes that share the sums of a group of columns.
const LANES = 64u / ROWS;
// Σ g n and Σ g.
var<workgroup> parts: array<vec2<f32>, 64>;

fn place(row: u32) -> u32 {
    return row / params.groups * params.stride + params.first + row % params.groups * params.cols;
}

// Four columns of x, normalised with the row's `factor`; 0 beyond the end.
fn normed(row: u32, k: u32, factor: f32) -> vec4<f32> {
    var centre = 0.0;
//#if LAYER
    centre = mean[row];
//#end
    let inside = vec4(k, k + 1u, k + 2u, k + 3u) < vec4(params.cols);
    return select(vec4<f32>(), (load_x(place(row), k, params.cols) - centre) * factor, inside);
}

fn weight_of(k: u32) -> vec4<f32> {
    return load_weight(0u, k, params.cols) + select(0.0, 1.0, UNIT_OFFSET);
}

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end) {
        return;
    }
    let first = group * params.share * params.groups;
    let last = min((group + 1u) * params.share, extent(params.rows)) * params.groups;
    for (var begin = first; begin < last; begin += ROWS) {
        let end = min(begin + ROWS, last);
        let row = begin + lane / LANES;
        var part = vec2(0.0);
        if (row < end) {
            let factor = inverse[row];
            for (var k = lane % LANES * 4u; k < params.cols; k += LANES * 4u) {
                let g = load_dy(place(row), k, params.cols) * weight_of(k);
                part += vec2(dot(g, normed(row, k, factor)), dot(g, vec4(1.0)));
            }
        }
        workgroupBarrier();
        parts[lane] = part;
        workgroupBarrier();
        for (var k = lane * 4u; k < params.cols; k += 256u) {
            let count = min(4u, params.cols - k);
            let w = weight_of(k);
            var to_weight = vec4(0.0);
            var to_bias = vec4(0.0);
            for (var n = begin; n < end; n++) {
                var sum = vec2(0.0);
                for (var l = 0u; l < LANES; l++) {
                    sum += parts[(n - begin) * LANES + l];
                }
                let means = sum / f32(params.cols);
                let factor = inverse[n];
                let x_here = normed(n, k, factor);
                let d = load_dy(place(n), k, params.cols);
                var v = factor * (d * w - x_here * means.x - select(0.0, means.y, LAYER));
                to_weight += d * x_here;
                to_bias += d;
//#if ADD
                v += load_dx(place(n) + k, 0u, count);
//#end
                store_dx(place(n) + k, v, count);
            }
            let at = group * params.cols + k;
//#if TO_WEIGHT
            if (begin > first) {
                to_weight += load_dweight(at, 0u, count);
            }
            store_dweight(at, to_weight, count);
//#end
//#if TO_BIAS
            if (begin > first) {
                to_bias += load_dbias(at, 0u, count);
            }
            store_dbias(at, to_bias, count);
//#end
        }
    }
}
