//! Every merge method, a row each.

use crate::decompose::Rule as Decomposition;
use crate::methods::{Base, Combine, Method, Over, Rescale, Sparsify, Sphere};

/// A method of the most common kind: task vectors of any number of experts, nothing done to any of them.
const PLAIN: Method = Method {
    name: "",
    formula: "",
    paper: "",
    sparsify: Sparsify::Keep,
    combine: Combine::TaskVectors,
    over: Over::TaskVectors,
    base: Base::Required,
    experts: None,
    normalize: false,
    rescale: Rescale::None,
    params: &[],
};

/// Parameters of decompositions.
const SPECTRAL: &[(&str, &str)] = &[("weight", "1"), ("lambda", "1"), ("embeddings", "false")];

/// Parameters of both forms of DARE.
const DARE: &[(&str, &str)] =
    &[("weight", "1"), ("density", "1"), ("lambda", "1"), ("normalize", "false"), ("rescale", "l1")];

/// Parameters of both forms of breadcrumbs.
const BREADCRUMBS: &[(&str, &str)] = &[
    ("weight", "1"),
    ("density", "1"),
    ("gamma", "0.01"),
    ("lambda", "1"),
    ("normalize", "false"),
    ("rescale", "false"),
];

/// All methods.
pub static METHODS: &[Method] = &[
    Method {
        name: "linear",
        formula: "θ = Σ w_k θ_k / Σ w_k",
        paper: "Model soups, arXiv 2203.05482",
        combine: Combine::Models,
        over: Over::Models,
        base: Base::Optional,
        normalize: true,
        params: &[("weight", "1"), ("normalize", "true")],
        ..PLAIN
    },
    Method {
        name: "task_arithmetic",
        formula: "θ = θ_0 + λ Σ w_k τ_k",
        paper: "Editing models with task arithmetic, arXiv 2212.04089",
        params: &[("weight", "1"), ("lambda", "1"), ("normalize", "false")],
        ..PLAIN
    },
    Method {
        name: "ties",
        formula: "θ = θ_0 + λ Σ_{sign agrees} w_k trim(τ_k) / Σ_{sign agrees} w_k",
        paper: "TIES-Merging, arXiv 2306.01708",
        sparsify: Sparsify::Largest,
        combine: Combine::Elect,
        normalize: true,
        params: &[("weight", "1"), ("density", "1"), ("lambda", "1"), ("normalize", "true"), ("rescale", "false")],
        ..PLAIN
    },
    Method {
        name: "dare_linear",
        formula: "θ = θ_0 + λ Σ w_k s_k (m_k ∘ τ_k), m_k random",
        paper: "DARE, arXiv 2311.03099",
        sparsify: Sparsify::Random,
        rescale: Rescale::L1,
        params: DARE,
        ..PLAIN
    },
    Method {
        name: "dare_ties",
        formula: "θ = θ_0 + λ Σ_{sign agrees} w_k s_k (m_k ∘ τ_k), m_k random",
        paper: "DARE, arXiv 2311.03099, and TIES-Merging, arXiv 2306.01708",
        sparsify: Sparsify::Random,
        combine: Combine::Elect,
        rescale: Rescale::L1,
        params: DARE,
        ..PLAIN
    },
    Method {
        name: "della",
        formula: "θ = θ_0 + λ Σ_{sign agrees} w_k s_k (m_k ∘ τ_k) / Σ_{sign agrees} w_k, P(m_k = 1) from d − ε to d + ε by rank of |τ_k| in its row",
        paper: "DELLA-Merging, arXiv 2406.11617",
        sparsify: Sparsify::Ranked,
        combine: Combine::Elect,
        normalize: true,
        rescale: Rescale::L1,
        params: &[
            ("weight", "1"),
            ("density", "1"),
            ("epsilon", "0.15"),
            ("lambda", "1"),
            ("normalize", "true"),
            ("rescale", "l1"),
        ],
        ..PLAIN
    },
    Method {
        name: "della_linear",
        formula: "θ = θ_0 + λ Σ w_k s_k (m_k ∘ τ_k), m_k as in della",
        paper: "DELLA-Merging, arXiv 2406.11617",
        sparsify: Sparsify::Ranked,
        rescale: Rescale::L1,
        params: &[
            ("weight", "1"),
            ("density", "1"),
            ("epsilon", "0.15"),
            ("lambda", "1"),
            ("normalize", "false"),
            ("rescale", "l1"),
        ],
        ..PLAIN
    },
    Method {
        name: "breadcrumbs",
        formula: "θ = θ_0 + λ Σ w_k (m_k ∘ τ_k), m_k without the ⌊γn⌋ largest (at most those that leave ⌊dn⌋) and all below the next ⌊dn⌋",
        paper: "Model Breadcrumbs, arXiv 2312.06795",
        sparsify: Sparsify::Middle,
        params: BREADCRUMBS,
        ..PLAIN
    },
    Method {
        name: "breadcrumbs_ties",
        formula: "θ = θ_0 + λ Σ_{sign agrees} w_k (m_k ∘ τ_k), m_k as in breadcrumbs",
        paper: "Model Breadcrumbs, arXiv 2312.06795, and TIES-Merging, arXiv 2306.01708",
        sparsify: Sparsify::Middle,
        combine: Combine::Elect,
        params: BREADCRUMBS,
        ..PLAIN
    },
    Method {
        name: "sce",
        formula: "θ = θ_0 + λ Σ_{sign agrees} ω_k τ_k / Σ_{sign agrees} ω_k where Var_k τ_k is among the largest, ω_k = ‖τ_k‖² there",
        paper: "FuseChat, arXiv 2408.07990",
        sparsify: Sparsify::Varying,
        combine: Combine::Energies,
        params: &[("select_topk", "1"), ("lambda", "1")],
        ..PLAIN
    },
    Method {
        name: "consensus_ta",
        formula: "θ = θ_0 + λ (m ∘ Σ u_k), u_k = w_k trim(τ_k), m = [#{k: |u_k| > c |Σ_{j≠k} u_j|} ≥ min(v, K)]",
        paper: "Consensus Merging (TALL masks), arXiv 2405.07813",
        sparsify: Sparsify::Largest,
        combine: Combine::Consensus,
        params: &[("weight", "1"), ("density", "1"), ("lambda", "1"), ("mask_lambda", "0.4"), ("votes", "2")],
        ..PLAIN
    },
    Method {
        name: "model_stock",
        formula: "θ = θ_0 + t Σ τ_k / K, t = K c / (1 + (K−1) c), c the mean cosine of pairs",
        paper: "Model Stock, arXiv 2403.19522",
        combine: Combine::Sphere(Sphere::Stock),
        params: &[("filter_wise", "false")],
        ..PLAIN
    },
    Method {
        name: "slerp",
        formula: "θ = sin((1−t)Ω)/sin Ω · θ_0 + sin(tΩ)/sin Ω · θ_1, Ω = ∠(θ_0, θ_1)",
        paper: "Shoemake, SIGGRAPH 1985",
        combine: Combine::Slerp,
        experts: Some(1),
        params: &[("t", "to be given")],
        ..PLAIN
    },
    Method {
        name: "slerp_rows",
        formula: "θ = θ_0 + slerp(τ_1, τ_2; t), each row by itself",
        paper: "MAGIC, arXiv 2512.19320 (reference)",
        combine: Combine::Sphere(Sphere::Rows),
        experts: Some(2),
        params: &[("t", "0.5")],
        ..PLAIN
    },
    Method {
        name: "nuslerp",
        formula: "θ = θ_0 + slerp(τ_1, τ_2; w_2/(w_1+w_2)); without a base slerp(θ_1, θ_2)",
        paper: "mergekit, after Shoemake, SIGGRAPH 1985",
        combine: Combine::Sphere(Sphere::Pair),
        over: Over::TaskVectorsOrModels,
        base: Base::Optional,
        experts: Some(2),
        params: &[("weight", "1"), ("nuslerp_flatten", "true"), ("nuslerp_row_wise", "false")],
        ..PLAIN
    },
    Method {
        name: "multislerp",
        formula: "θ = θ_0 + Σ w_k‖τ_k‖ · exp_m(Σ w_k (u_k − ⟨u_k,m⟩m)), u_k = τ_k/‖τ_k‖, m ∝ Σ w_k u_k; without a base of θ_k",
        paper: "mergekit; Buss and Fillmore, ACM TOG 20(2), 2001",
        combine: Combine::Sphere(Sphere::Several),
        over: Over::TaskVectorsOrModels,
        base: Base::Optional,
        params: &[("weight", "1"), ("normalize_weights", "true"), ("eps", "1e-8")],
        ..PLAIN
    },
    Method {
        name: "karcher",
        formula: "θ = mean ‖θ_k‖ · the Riemannian mean of θ_k/‖θ_k‖ on the sphere",
        paper: "Karcher, Comm. Pure Appl. Math. 30, 1977",
        combine: Combine::Sphere(Sphere::Karcher),
        over: Over::Models,
        base: Base::Optional,
        params: &[("max_iter", "10"), ("tol", "1e-5")],
        ..PLAIN
    },
    Method {
        name: "nearswap",
        formula: "θ = θ_0 + sign(τ_1) min(|τ_1|, t)",
        paper: "NearSwap (alchemonaut), as in mergekit",
        combine: Combine::Near,
        experts: Some(1),
        params: &[("t", "to be given")],
        ..PLAIN
    },
    Method {
        name: "tsv_m",
        formula: "θ = θ_0 + λ P(Û) Σ̂ P(V̂)ᵀ, of the first ⌊r/K⌋ singular triplets of each w_k τ_k, one at least; P the polar factor",
        paper: "Task Singular Vectors, arXiv 2412.00081",
        combine: Combine::Decompose(Decomposition::TsvM),
        params: SPECTRAL,
        ..PLAIN
    },
    Method {
        name: "iso_c",
        formula: "θ = θ_0 + λ P(S) ⟨P(S),S⟩ / r, S = Σ w_k τ_k, r = min(m, n); P the polar factor",
        paper: "Isotropic merging, arXiv 2502.04959",
        combine: Combine::Decompose(Decomposition::IsoC),
        params: SPECTRAL,
        ..PLAIN
    },
    Method {
        name: "iso_cts",
        formula: "θ = θ_0 + λ σ̄ P(Û) P(V̂)ᵀ, of the common singular space of S = Σ w_k τ_k and what each w_k τ_k has beyond it",
        paper: "Isotropic merging, arXiv 2502.04959",
        combine: Combine::Decompose(Decomposition::IsoCts { common_fraction: 0.8 }),
        params: &[("weight", "1"), ("lambda", "1"), ("common_fraction", "0.8"), ("embeddings", "false")],
        ..PLAIN
    },
    Method {
        name: "passthrough",
        formula: "θ = s θ_1",
        paper: "mergekit",
        combine: Combine::Scale,
        over: Over::Models,
        base: Base::Optional,
        experts: Some(1),
        params: &[("scale", "1")],
        ..PLAIN
    },
];

/// A merge that was made by another program: its task vector is there, whatever it came from.
pub static GIVEN: Method = Method { name: "given", formula: "θ_m", ..PLAIN };
