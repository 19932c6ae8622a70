// Radial and angular functions of edges with their slopes; VL edges are worked on at a time, one in each lane.
//
// The plain functions, radial_basis and spherical_harmonics_with_gradient, say what they are. `harmonics` is generated:
// values and partial derivatives of the damped polynomials at a unit vector.

struct EdgeOutput {
    real *radial, *radial_slope;    // (E, NB)
    real *angular, *angular_slope;  // (E, S), (E, 3, S)
    real *direction;                // (E, 3)
};

// Numbers of one edge lie side by side in memory, here those of VL edges.
static inline void spread(const V *from, i64 count, i64 lanes, real *to, i64 stride) {
    for (i64 i = 0; i < count; i++)
        for (i64 lane = 0; lane < lanes; lane++) to[lane * stride + i] = from[i][lane];
}

// vectors (E, 3); inner (E): below it the distance saturates
extern "C" void edge_functions(i64 edges, const real *vectors, const real *inner, double r_max, const EdgeOutput *output) {
    const real root2 = (real)std::sqrt(2.0), pi = (real)M_PI, end = (real)r_max;
    for (i64 first = 0; first < edges; first += VL) {
        const i64 lanes = edges - first < VL ? edges - first : VL;
        V u[3] = {}, r, s, ds, sine, cosine, x;
        for (i64 lane = 0; lane < VL; lane++) {
            const i64 i = first + (lane < lanes ? lane : 0);  // spare lanes repeat the first
            const real *v = vectors + 3 * i, a = inner[i];
            r[lane] = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
            for (int k = 0; k < 3; k++) u[k][lane] = v[k] / r[lane];
            const real t = r[lane] / a;
            s[lane] = t < 1 ? a * (real(0.5) + t * t * t * (1 - real(0.5) * t)) : r[lane];
            ds[lane] = t < 1 ? t * t * (3 - 2 * t) : 1;
            const real angle = pi / end * s[lane];
            sine[lane] = std::sin(angle), cosine[lane] = std::cos(angle);
            x[lane] = s[lane] < end ? s[lane] / end : 1;
        }

        // polynomial cutoff and its slope by x
        V lower = x;
        for (int k = 2; k < CUTOFF; k++) lower *= x;
        const real a = (CUTOFF + 1) * (CUTOFF + 2) / 2, b = CUTOFF * (CUTOFF + 2), c = CUTOFF * (CUTOFF + 1) / 2;
        const V envelope = 1 - lower * x * (a - x * (b - x * c));
        const V envelope_slope = -lower * (a * CUTOFF - x * (b * (CUTOFF + 1) - x * c * (CUTOFF + 2))) / end;

        // sin(n angle) and cos(n angle) by turning again and again
        V value[S > NB ? S : NB], slope[S > NB ? S : NB], sn = sine, cn = cosine;
        for (int n = 1; n <= NB; n++) {
            const V bessel = root2 / n * sn / s;
            value[n - 1] = bessel * envelope;
            slope[n - 1] = ((root2 * pi / end * cn - bessel) / s * envelope + bessel * envelope_slope) * ds;
            const V next = sn * cosine + cn * sine;
            cn = cn * cosine - sn * sine, sn = next;
        }
        spread(value, NB, lanes, output->radial + first * NB, NB);
        spread(slope, NB, lanes, output->radial_slope + first * NB, NB);
        spread(u, 3, lanes, output->direction + first * 3, 3);

        V by[3][S];
        harmonics(u[0], u[1], u[2], value, by[0], by[1], by[2]);
        spread(value, S, lanes, output->angular + first * S, S);
        for (int m = 0; m < S; m++) {  // Y does not know the length: nothing along the vector
            const V along = u[0] * by[0][m] + u[1] * by[1][m] + u[2] * by[2][m];
            for (int k = 0; k < 3; k++) by[k][m] = (by[k][m] - u[k] * along) / r;
        }
        for (int k = 0; k < 3; k++) spread(by[k], S, lanes, output->angular_slope + (first * 3 + k) * S, 3 * S);
    }
}
