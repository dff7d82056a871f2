-- Edits of questions.

-- A person who edits a question repeatedly delays others in the thread for so many beginnings.
local MOST_RESTARTS = 5

-- Replaces the text of a question that its author has edited, at `edited` (ms), and answers it again. If
-- the turn is not known and was asked less than a day ago, it is admitted: it may be a question only now, or
-- its admission comes later. Of two edits the later wins, in any order. Platforms may report an edit that
-- changes no text.
function verbs.edit(id, thread, person, fields, asked, edited, thread_limit,
    person_limit, total_limit, context, quota)
  local turn = record(id)
  if not turn.state then
    if now_ms() - asked >= DAY_MS or redis.call('EXISTS', key('answered', id)) == 1 then return 'ignored' end
    local answer = verbs.admit(id, thread, person, fields, thread_limit, person_limit, total_limit, context, quota)
    if answer == 'admitted' then set(id, 'edited', edited) end
    return answer
  end
  fields = decoded(fields)
  local known = redis.call('HMGET', key('turn', id), 'text', 'edited', 'forget', 'asker', 'files')
  local lead = get(id, 'lead') or id
  local whole = record(lead)
  if turn.state == 'dropped' or known[3] or not turn.thread then return 'ignored' end
  if known[4] ~= fields.asker or natural(known[2]) > tonumber(edited) then return 'ignored' end
  -- Of those that have ended, only the last one: it is remembered last, or has no answer and none has followed.
  local last = last_remembered(turn.thread)
  if not is_open(whole) and last ~= lead and last ~= get(lead, 'after') then return 'ignored' end
  if has(lead, 'aside') then return 'ignored' end
  if known[1] == fields.text and (known[5] or '') == (fields.files or '') then return 'ignored' end

  quota = decoded(quota)
  local more = needs(quota)
  if is_open(whole) then
    -- The model is asked once more, unless no worker has begun.
    local again = whole.fence ~= '0'
    if not again then
      local reserved = reserved_by(id)
      local tokens, money = math.max(more.tokens - reserved.tokens, 0), math.max(more.money - reserved.money, 0)
      more = {questions = 0, tokens = tokens, money = money}
    end
    local used = quota_refusal(turn.person, turn.thread, quota, more)
    if used ~= '' then return used end
    local is_frequent = natural(get(lead, 'restarts')) >= MOST_RESTARTS
    if is_frequent and keeps_others_waiting(turn.thread, turn.person) then return 'thread' end
    reserve(lead, turn.person, turn.thread, more)
    -- A stop was for the answer to the previous text.
    unset(lead, 'stop')
    copy_preferences(lead, turn.thread)
    if again then ask_for_anew(lead) end
  else
    if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then return 'ignored' end
    local full = refusal(turn.person, person_limit, total_limit)
    if full == '' then full = quota_refusal(turn.person, turn.thread, quota, more) end
    if full ~= '' then return full end
    enqueue_again(lead, whole, quota)
  end
  replace_question(id, fields.text, fields.left_out, fields.files or '')
  set(id, 'edited', edited)
  return 'edited'
end
