//! The hosts that are known: where their configuration is and where in it the servers stand.
//!
//! Checked against the hosts' own documentation in November 2026.

/// A host's configuration, as data.
#[derive(Debug)]
pub struct Format {
    /// A word for scripts.
    pub id: &'static str,
    /// The host's name.
    pub host: &'static str,
    /// Files below a user's home; a part `*` or `*.yaml` stands for any such name.
    pub home: &'static [&'static str],
    /// Files below a project's directory.
    pub project: &'static [&'static str],
    /// The keys under which the servers stand, a mapping by name or a list of items with a `name`;
    /// `*` stands for any key.
    pub servers: &'static [&'static [&'static str]],
    /// Names of the host's executables.
    pub executables: &'static [&'static str],
    /// Packages that are the host, where an interpreter runs it.
    pub packages: &'static [&'static str],
    /// What its child processes are.
    pub children: Children,
}

/// What a host's child processes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// Those on pipes are MCP servers.
    Servers,
    /// Language servers, terminals, shells and MCP servers alike.
    Mixed,
}

const MCP_SERVERS: &[&[&str]] = &[&["mcpServers"]];

/// Every host that is known.
pub const FORMATS: &[Format] = &[
    Format {
        id: "claude-desktop",
        host: "Claude Desktop",
        home: &[".config/Claude/claude_desktop_config.json"],
        project: &[],
        servers: MCP_SERVERS,
        executables: &["claude-desktop"],
        packages: &[],
        children: Children::Servers,
    },
    Format {
        id: "claude-code",
        host: "Claude Code",
        home: &[".claude.json", ".mcp.json"],
        project: &[".mcp.json"],
        servers: &[&["mcpServers"], &["projects", "*", "mcpServers"]],
        executables: &["claude"],
        packages: &["@anthropic-ai/claude-code"],
        children: Children::Mixed,
    },
    Format {
        id: "cursor",
        host: "Cursor",
        home: &[".cursor/mcp.json"],
        project: &[".cursor/mcp.json"],
        servers: MCP_SERVERS,
        executables: &["cursor", "cursor-agent"],
        packages: &[],
        children: Children::Mixed,
    },
    Format {
        id: "vscode",
        host: "VS Code",
        home: &[
            ".config/Code/User/mcp.json",
            ".config/Code/User/settings.json",
            ".config/Code/User/profiles/*/mcp.json",
            ".config/Code - Insiders/User/mcp.json",
            ".config/Code - Insiders/User/settings.json",
            ".config/VSCodium/User/mcp.json",
            ".config/VSCodium/User/settings.json",
            ".vscode-server/data/User/mcp.json",
        ],
        project: &[".vscode/mcp.json", ".vscode/settings.json"],
        // In a file of its own, and in the settings of older versions.
        servers: &[&["servers"], &["mcp", "servers"]],
        executables: &["code", "code-insiders", "codium"],
        packages: &[],
        children: Children::Mixed,
    },
    Format {
        id: "copilot",
        host: "GitHub Copilot",
        home: &[".copilot/mcp-config.json"],
        project: &[],
        servers: MCP_SERVERS,
        executables: &["copilot"],
        packages: &["@github/copilot"],
        children: Children::Mixed,
    },
    Format {
        id: "windsurf",
        host: "Windsurf",
        home: &[".codeium/windsurf/mcp_config.json"],
        project: &[],
        servers: MCP_SERVERS,
        executables: &["windsurf"],
        packages: &[],
        children: Children::Mixed,
    },
    Format {
        id: "zed",
        host: "Zed",
        home: &[".config/zed/settings.json"],
        project: &[".zed/settings.json"],
        servers: &[&["context_servers"]],
        executables: &["zed", "zed-editor"],
        packages: &[],
        children: Children::Mixed,
    },
    Format {
        id: "continue",
        host: "Continue",
        home: &[
            ".continue/config.yaml",
            ".continue/mcpServers/*.yaml",
            ".continue/mcpServers/*.yml",
            ".continue/mcpServers/*.json",
        ],
        project: &[
            ".continue/mcpServers/*.yaml",
            ".continue/mcpServers/*.yml",
            ".continue/mcpServers/*.json",
        ],
        servers: MCP_SERVERS,
        executables: &["cn"],
        packages: &["@continuedev/cli"],
        children: Children::Mixed,
    },
    Format {
        id: "cline",
        host: "Cline",
        home: &[
            ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
            ".config/Code - Insiders/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
            ".config/VSCodium/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
            ".config/Cursor/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
            ".vscode-server/data/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
        ],
        project: &[],
        servers: MCP_SERVERS,
        executables: &[],
        packages: &[],
        children: Children::Mixed,
    },
    Format {
        id: "codex",
        host: "Codex",
        home: &[".codex/config.toml"],
        project: &[".codex/config.toml"],
        servers: &[&["mcp_servers"]],
        executables: &["codex"],
        packages: &["@openai/codex"],
        children: Children::Mixed,
    },
    Format {
        id: "gemini",
        host: "Gemini CLI",
        home: &[".gemini/settings.json"],
        project: &[".gemini/settings.json"],
        servers: MCP_SERVERS,
        executables: &["gemini"],
        packages: &["@google/gemini-cli"],
        children: Children::Mixed,
    },
];

/// A file that somebody names and that is where no known host keeps it.
static ANY: Format = Format {
    id: "unknown",
    host: "an MCP host",
    home: &[],
    project: &[],
    servers: &[
        &["mcpServers"],
        &["servers"],
        &["context_servers"],
        &["mcp_servers"],
        &["mcp", "servers"],
        &["projects", "*", "mcpServers"],
    ],
    executables: &[],
    packages: &[],
    children: Children::Mixed,
};

impl Format {
    /// The host of this word.
    pub fn named(id: &str) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.id == id)
    }

    /// The host whose file a path names, by its last parts.
    pub fn of(path: &std::path::Path) -> &'static Self {
        let parts: Vec<String> = path
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        let ends = |pattern: &&'static str| {
            let wanted: Vec<&str> = pattern.split('/').collect();
            let from = parts.len().checked_sub(wanted.len());
            let tail = from.and_then(|from| parts.get(from..)).unwrap_or_default();
            !tail.is_empty()
                && tail
                    .iter()
                    .zip(&wanted)
                    .all(|(part, want)| fits(want, part))
        };
        FORMATS
            .iter()
            .find(|format| format.home.iter().chain(format.project).any(ends))
            .unwrap_or(&ANY)
    }
}

/// Whether a part of a path is what a pattern's part says.
pub(super) fn fits(pattern: &str, part: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(ending) => part.ends_with(ending) && !part.starts_with('.'),
        None => part == pattern,
    }
}
