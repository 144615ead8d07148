"""How the picture of a Slack message looks: style sheet and avatar, nothing loaded from afar."""

from __future__ import annotations

CSS = """
*{box-sizing:border-box}
html{background:#fff}
body{margin:0;color:#1d1c1d;font:15px/1.47 Lato,"Noto Sans","Helvetica Neue",Arial,
"DejaVu Sans","Noto Color Emoji","Noto Emoji",sans-serif;overflow-wrap:anywhere}
.bar{padding:12px 20px;border-bottom:1px solid #dddddd;font-weight:800;font-size:18px}
main{padding:8px 0}
.lock{margin:12px 20px 4px 64px;padding:8px 12px;border-radius:12px;background:#eceef2;
font-size:13px;color:#33373d}
.lock b{display:block;font-size:12px;color:#6a6f78}
.message{display:flex;gap:8px;padding:8px 20px}
.avatar{flex:none;width:36px;height:36px;border-radius:6px}
.body{min-width:0;flex:1}
.who{display:flex;gap:6px;align-items:center;line-height:1.2}
.who b{font-weight:800}
.badge{font-size:10px;font-weight:700;padding:1px 3px;border-radius:2px;background:#e4e4e5;
color:#5b5a5c}
time,.edited{font-size:12px;color:#616061}
h1{margin:6px 0;font-size:18px;line-height:1.33;font-weight:800}
.section{display:flex;gap:16px;margin:6px 0}
.words{flex:1;min-width:0}
.fields{display:grid;grid-template-columns:1fr 1fr;gap:8px 16px;margin:4px 0}
.context{display:flex;flex-wrap:wrap;gap:2px 10px;margin:6px 0;font-size:13px;color:#616061}
hr{border:0;border-top:1px solid #dddddd;margin:10px 0}
b{font-weight:700}
a{color:#1264a3;text-decoration:none}
code{font:12px/1.5 "DejaVu Sans Mono",Menlo,Consolas,monospace;padding:1px 3px;
border:1px solid #d9d9da;border-radius:3px;background:#f6f6f6;color:#c01343}
pre{font:12px/1.5 "DejaVu Sans Mono",Menlo,Consolas,monospace;margin:4px 0;padding:8px;
border:1px solid #d9d9da;border-radius:4px;background:#f8f8f8;white-space:pre-wrap}
blockquote{margin:2px 0;padding-left:12px;border-left:4px solid #dddddd}
.mention{padding:0 2px;border-radius:3px;background:#e3eef7;color:#1264a3}
.loud{background:#fff1c9;color:#8a5a00}
.actions{display:flex;flex-wrap:wrap;gap:8px;margin:8px 0}
.button{display:inline-block;padding:3px 12px;border:1px solid #b9b9ba;border-radius:8px;
font-size:13px;font-weight:700;background:#fff}
.primary{background:#007a5a;border-color:#007a5a;color:#fff}
.danger{background:#c8174b;border-color:#c8174b;color:#fff}
.confirm,.remark{margin:4px 0;padding:3px 8px;border:1px dashed #b9b9ba;border-radius:4px;
font-size:12px;color:#616061}
.image,.unknown{display:inline-block;padding:6px 10px;border:1px dashed #b9b9ba;
border-radius:4px;background:#f4f4f4;color:#616061;font-size:13px}
.file{margin:6px 0}
.file figcaption{font-size:13px;color:#616061}
.file img{max-width:100%;border:1px solid #dddddd;border-radius:6px}
.thread{margin-left:64px;border-left:2px solid #dddddd}
.thread .message{padding:6px 20px 6px 12px}
.thread .lock{margin-left:44px}
.thread .avatar{width:24px;height:24px}
.count{padding:4px 12px;font-size:13px;font-weight:700;color:#1264a3}
.emoji{width:1.25em;height:1.25em;vertical-align:-.25em}
footer{padding:8px 20px 14px;font-size:11px;color:#8a898b}
"""

AVATAR = (
    '<svg class="avatar" viewBox="0 0 36 36" role="img" aria-label="imagegate">'
    '<rect width="36" height="36" rx="6" fill="#23395b"/>'
    '<path d="M8 29V15a10 10 0 0 1 20 0v14" fill="none" stroke="#f2b134" stroke-width="3"/>'
    '<path d="M14 29V18M18 29V15M22 29V18" stroke="#fff" stroke-width="2"/></svg>'
)
