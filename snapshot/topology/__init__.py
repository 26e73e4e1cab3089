"""From the model to what one proxy needs: facts about a mesh, which policy wins, where outbounds lead.

Never here: Envoy's messages.
"""
