// Activations of four elements, and their derivatives. ACTIVATION: 0 silu x σ(x); 1 gelu with tanh, 2 with the error
// function (Hendrycks and Gimpel 2016, arXiv 1606.08415); 3 relu².
fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    let e = exp(-abs(x));
    return select(e, vec4(1.0), x >= vec4(0.0)) / (1.0 + e);
}

// Some drivers compute tanh with an exp that overflows.
fn tanh_of(x: vec4<f32>) -> vec4<f32> {
    return tanh(clamp(x, vec4(-15.0), vec4(15.0)));
}

// The error function, accurate to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
fn error_function(x: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - tail * exp(-x * x));
}

// The argument of the tanh form, sqrt(2 / π) (x + 0.044715 x³), and its derivative.
fn gelu_argument(x: vec4<f32>) -> vec4<f32> {
    return 0.7978845608 * x * (1.0 + 0.044715 * x * x);
}

fn activate(x: vec4<f32>) -> vec4<f32> {
    switch ACTIVATION {
        case 0u: {
            return x * sigmoid(x);
        }
        case 1u: {
            return 0.5 * x * (1.0 + tanh_of(gelu_argument(x)));
        }
        case 2u: {
            return 0.5 * x * (1.0 + error_function(x * 0.7071067812));
        }
        default: {
            let positive = max(x, vec4(0.0));
            return positive * positive;
        }
    }
}

fn activation_slope(x: vec4<f32>) -> vec4<f32> {
    switch ACTIVATION {
        case 0u: {
            let s = sigmoid(x);
            return s * (1.0 + x * (1.0 - s));
        }
        case 1u: {
            let t = tanh_of(gelu_argument(x));
            return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608 * (1.0 + 0.134145 * x * x);
        }
        case 2u: {
            return 0.5 * (1.0 + error_function(x * 0.7071067812)) + x * 0.3989422804 * exp(-0.5 * x * x);
        }
        default: {
            return 2.0 * max(x, vec4(0.0));
        }
    }
}
