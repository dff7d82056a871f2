"""Names and descriptions of the commands in the languages of Discord's clients."""

from __future__ import annotations

from collections.abc import Mapping

# Discord's documentation, "Locales". The same Spanish is registered for both of its kinds.
LOCALES = ("de", "fr", "es-ES", "es-419", "ja")

# German, French, Spanish and Japanese, by the English text. A name has at most 32 characters, no
# blank and no capital; a description has at most 100 characters.
_ALL: Mapping[str, tuple[str, str, str, str]] = {
    "ask": ("frag", "demander", "preguntar", "質問"),
    "question": ("frage", "question", "pregunta", "質問"),
    "private": ("privat", "privé", "privado", "非公開"),
    "file": ("datei", "fichier", "archivo", "ファイル"),
    "reset": ("vergiss", "réinitialiser", "reiniciar", "リセット"),
    "stop": ("stopp", "arrêter", "parar", "停止"),
    "quiet": ("ruhig", "silence", "silencio", "静かに"),
    "follow": ("mitlesen", "suivre", "seguir", "フォロー"),
    "model": ("modell", "modèle", "modelo", "モデル"),
    "persona": ("persona", "personnalité", "personalidad", "人格"),
    "settings": ("einstellungen", "réglages", "ajustes", "設定"),
    "usage": ("verbrauch", "consommation", "consumo", "使用量"),
    "forget-me": ("vergiss-mich", "oublie-moi", "olvídame", "私を忘れて"),
    "help": ("hilfe", "aide", "ayuda", "ヘルプ"),
    "name": ("name", "nom", "nombre", "名前"),
    "text": ("text", "texte", "texto", "文章"),
    "where": ("wo", "où", "dónde", "場所"),
    "Ask about this": (
        "Dazu etwas fragen",
        "Poser une question",
        "Preguntar sobre esto",
        "これについて質問",
    ),
    "Summarise from here": (
        "Ab hier zusammenfassen",
        "Résumer à partir d'ici",
        "Resumir desde aquí",
        "ここから要約",
    ),
    "this conversation": (
        "dieses Gespräch",
        "cette conversation",
        "esta conversación",
        "この会話",
    ),
    "this channel": ("dieser Kanal", "ce salon", "este canal", "このチャンネル"),
    "this server": ("dieser Server", "ce serveur", "este servidor", "このサーバー"),
    "Ask me something": (
        "Frag mich etwas",
        "Pose-moi une question",
        "Pregúntame algo",
        "私に質問する",
    ),
    "Your question": ("Deine Frage", "Ta question", "Tu pregunta", "質問の内容"),
    "Only you see the question and the answer": (
        "Nur du siehst die Frage und die Antwort",
        "Toi seul vois la question et la réponse",
        "Solo tú ves la pregunta y la respuesta",
        "質問と回答はあなただけに表示されます",
    ),
    "A file; I see only its name": (
        "Eine Datei; ich sehe nur ihren Namen",
        "Un fichier ; je ne vois que son nom",
        "Un archivo; solo veo su nombre",
        "ファイル。名前だけが見えます",
    ),
    "What I do here, and how I answer": (
        "Was ich hier tue und wie ich antworte",
        "Ce que je fais ici et comment je réponds",
        "Qué hago aquí y cómo respondo",
        "ここでの動作と答え方",
    ),
    "Forget this conversation": (
        "Dieses Gespräch vergessen",
        "Oublier cette conversation",
        "Olvidar esta conversación",
        "この会話を忘れる",
    ),
    "End the answer that is running here": (
        "Die Antwort beenden, die hier gerade entsteht",
        "Arrêter la réponse en cours ici",
        "Terminar la respuesta en curso aquí",
        "ここで生成中の回答を止める",
    ),
    "Answer only mentions and replies in this thread": (
        "In diesem Thread nur auf Erwähnungen und Antworten reagieren",
        "Ne répondre qu'aux mentions et aux réponses dans ce fil",
        "Responder solo a menciones y respuestas en este hilo",
        "このスレッドではメンションと返信にだけ答える",
    ),
    "Answer everything in this thread": (
        "In diesem Thread auf alles antworten",
        "Répondre à tout dans ce fil",
        "Responder a todo en este hilo",
        "このスレッドではすべてに答える",
    ),
    "Choose the model that answers": (
        "Das Modell wählen, das antwortet",
        "Choisir le modèle qui répond",
        "Elegir el modelo que responde",
        "回答するモデルを選ぶ",
    ),
    "Choose how I am to answer": (
        "Wählen, wie ich antworten soll",
        "Choisir la façon dont je réponds",
        "Elegir cómo debo responder",
        "答え方を選ぶ",
    ),
    "Show and change what is chosen here": (
        "Zeigen und ändern, was hier gewählt ist",
        "Afficher et changer ce qui est choisi ici",
        "Ver y cambiar lo que está elegido aquí",
        "ここでの設定を表示・変更する",
    ),
    "Show what you have used today": (
        "Zeigen, was du heute verbraucht hast",
        "Afficher ta consommation du jour",
        "Ver lo que has usado hoy",
        "今日の使用量を表示する",
    ),
    "Forget everything you have said to me": (
        "Alles vergessen, was du mir gesagt hast",
        "Oublier tout ce que tu m'as dit",
        "Olvidar todo lo que me has dicho",
        "あなたが話したことをすべて忘れる",
    ),
    "Show what I can do here": (
        "Zeigen, was ich hier kann",
        "Afficher ce que je peux faire ici",
        "Ver lo que puedo hacer aquí",
        "ここでできることを表示する",
    ),
    "The model, or default; leave it out to see which answers": (
        "Das Modell oder default; ohne Angabe siehst du, welches antwortet",
        "Le modèle, ou default ; sans lui, tu vois lequel répond",
        "El modelo, o default; sin él ves cuál responde",
        "モデル名または default。省略すると現在のモデルを表示",
    ),
    "How I am to answer, or default; leave it out to see it": (
        "Wie ich antworten soll, oder default; ohne Angabe siehst du es",
        "Comment je dois répondre, ou default ; sans texte, tu le vois",
        "Cómo debo responder, o default; sin texto lo ves",
        "答え方または default。省略すると現在の設定を表示",
    ),
    "For which place; this conversation if left out": (
        "Wofür es gilt; ohne Angabe für dieses Gespräch",
        "Pour quel endroit ; sinon cette conversation",
        "Para qué lugar; si no, esta conversación",
        "適用する範囲。省略するとこの会話",
    ),
}


def translations(text: str) -> dict[str, str]:
    """Return a name or a description by Discord's locales; empty if it stays in English."""
    if text not in _ALL:
        return {}
    german, french, spanish, japanese = _ALL[text]
    return dict(zip(LOCALES, (german, french, spanish, spanish, japanese), strict=True))
